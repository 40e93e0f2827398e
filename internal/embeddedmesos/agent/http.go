package agent

import "net/http"

func (p *process) handler() http.Handler { return http.NewServeMux() }
