package agent

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxRead is how much /files/read returns at most (src/files/files.cpp uses 16
// pages).
const maxRead = 16 * 4096

var errOutside = errors.New("the path is in no sandbox")

// sandboxPath returns a path, if it is below the sandboxes, with symbolic
// links followed: a task may leave links that lead elsewhere.
func (p *process) sandboxPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	root, err := filepath.EvalSymlinks(filepath.Join(p.cfg.Dir, "slaves"))
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(real, root+string(filepath.Separator)) {
		return "", errOutside
	}
	return real, nil
}

// serveBrowse lists a directory of a sandbox.
func (p *process) serveBrowse(w http.ResponseWriter, r *http.Request) error {
	dir, err := p.requestedPath(r.URL.Query())
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &httpError{http.StatusNotFound, ""}
	}
	list := []object{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		list = append(list, object{
			"path":  filepath.Join(r.URL.Query().Get("path"), e.Name()),
			"size":  info.Size(),
			"nlink": 1,
			"mtime": info.ModTime().Unix(),
			"mode":  info.Mode().String(),
		})
	}
	return writeJSON(w, list)
}

// serveRead returns a part of a file; without an offset, only its size.
func (p *process) serveRead(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	path, err := p.requestedPath(query)
	if err != nil {
		return err
	}
	offset, err := number(query.Get("offset"), -1)
	if err != nil {
		return &httpError{http.StatusBadRequest, "Failed to parse offset: " + err.Error() + ".\n"}
	}
	length, err := number(query.Get("length"), -1)
	if err != nil {
		return &httpError{http.StatusBadRequest, "Failed to parse length: " + err.Error() + ".\n"}
	}
	info, err := regular(path)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return &httpError{http.StatusNotFound, "File not found.\n"}
	}
	defer file.Close()
	if offset < 0 {
		return writeJSON(w, object{"offset": info.Size(), "data": ""})
	}
	if length < 0 || length > maxRead {
		length = maxRead
	}
	data, err := io.ReadAll(io.NewSectionReader(file, offset, length))
	if err != nil {
		return &httpError{http.StatusInternalServerError, err.Error()}
	}
	return writeJSON(w, object{"offset": offset, "data": string(data)})
}

// regular refuses what cannot be read to an end: directories, and pipes that a
// task has made.
func regular(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &httpError{http.StatusNotFound, "File not found.\n"}
	}
	if !info.Mode().IsRegular() {
		return nil, &httpError{http.StatusBadRequest, "Cannot read what is not a regular file.\n"}
	}
	return info, nil
}

func number(text string, otherwise int64) (int64, error) {
	if text == "" {
		return otherwise, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// serveDownload returns a whole file.
func (p *process) serveDownload(w http.ResponseWriter, r *http.Request) error {
	path, err := p.requestedPath(r.URL.Query())
	if err != nil {
		return err
	}
	if _, err := regular(path); err != nil {
		return err
	}
	w.Header().Set("Content-Disposition", "attachment; filename="+strconv.Quote(filepath.Base(path)))
	http.ServeFile(w, r, path)
	return nil
}
