package app

func hasSecret(a *App, name string) bool { _, ok := a.Secrets[name]; return ok }

func validateSecrets(p *problems, a *App, opts Options) {
	if len(a.Secrets) > 0 && !opts.Secrets {
		p.add("/", "Feature secrets is not enabled. Enable with --enable_features secrets)")
	}
	for _, name := range sortedKeys(a.Env) {
		secret := a.Env[name].Secret
		switch {
		case secret == "":
		case !opts.Secrets:
			p.add("/env/"+name+"/secret", "use of secret-references in the environment requires the secrets feature to be enabled")
		case !hasSecret(a, secret):
			p.add("/env/"+name+"/secret", "references an undefined secret")
		}
	}
}

// validateSecretValues refuses secrets with which no task could be launched. What
// the stored definition has already is let pass: the app must stay changeable when a
// secret's file is not in order any more.
func validateSecretValues(p *problems, a *App, opts Options, stored *App) {
	if !opts.Secrets || opts.SecretKnown == nil || len(a.Secrets) == 0 {
		return
	}
	if stored == nil {
		stored = &App{}
	}
	known := map[string]bool{}
	for _, name := range sortedKeys(a.Secrets) {
		ok, err := opts.SecretKnown(a.Secrets[name].Source)
		known[name] = ok
		if err != nil && stored.Secrets[name] != a.Secrets[name] {
			p.addf("/secrets/"+name+"/source", "%v; name a file below the directory of --secrets-dir", err)
			known[name] = true // it is known what is wrong with it
		}
	}
	if !a.inDocker() {
		return
	}
	for _, name := range sortedKeys(a.Env) {
		secret := a.Env[name].Secret
		had := stored.inDocker() && stored.Env[name] == a.Env[name] && stored.Secrets[secret] == a.Secrets[secret]
		if secret != "" && hasSecret(a, secret) && !known[secret] && !had {
			p.addf("/env/"+name+"/secret", "the value of '%s' is not known, and DOCKER containers cannot get it on the agent; put it below the directory of --secrets-dir or use a MESOS container", secret)
		}
	}
}

// inDocker says whether the Docker containerizer runs the app.
func (a *App) inDocker() bool { return a.Container != nil && a.Container.Type == Docker }
