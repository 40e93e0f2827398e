package agent

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// fetchAll downloads the command's URIs into the sandbox, as mesos-fetcher
// does, without a cache: files, http and https, and archives (tar, tar.gz,
// tgz, zip), which are extracted unless the task does not want that.
func fetchAll(r *run) error {
	for _, uri := range r.task.GetCommand().URIs {
		if err := fetch(r, uri); err != nil {
			return failuref("Failed to fetch all URIs for container '%s': %s: %v", r.path.container, uri.Value, err)
		}
	}
	return nil
}

func fetch(r *run, uri mesos.CommandInfo_URI) error {
	target, err := fetchTarget(r.sandbox, uri)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := download(r.ctx, uri.Value, target); err != nil {
		return err
	}
	if uri.GetExecutable() {
		return os.Chmod(target, 0o755)
	}
	if uri.Extract == nil || *uri.Extract {
		return extract(target, filepath.Dir(target))
	}
	return nil
}

// fetchTarget is the output file, by default named like the resource.
func fetchTarget(sandbox string, uri mesos.CommandInfo_URI) (string, error) {
	name := uri.GetOutputFile()
	if name == "" {
		plain, _, _ := strings.Cut(uri.Value, "?")
		name = path.Base(plain)
	}
	if !filepath.IsLocal(name) || name == "." {
		return "", fmt.Errorf("output file %q is not inside the sandbox", name)
	}
	return filepath.Join(sandbox, name), nil
}

func download(ctx context.Context, uri, target string) error {
	source, err := open(ctx, uri)
	if err != nil {
		return err
	}
	defer source.Close()
	return writeFile(target, source, 0o644)
}

func open(ctx context.Context, uri string) (io.ReadCloser, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "":
		if !filepath.IsAbs(uri) {
			return nil, errors.New("a file without scheme needs an absolute path")
		}
		return os.Open(uri)
	case "file":
		return os.Open(u.Path)
	case "http", "https":
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
		if err != nil {
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusOK {
			return nil, errors.Join(fmt.Errorf("the server answers %s", response.Status), response.Body.Close())
		}
		return response.Body, nil
	}
	return nil, fmt.Errorf("embedded Mesos fetches file, http and https, not %s", u.Scheme)
}

func writeFile(target string, source io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, source)
	return errors.Join(err, f.Close())
}

// extract unpacks an archive that it knows by its name.
func extract(archive, dir string) error {
	switch {
	case strings.HasSuffix(archive, ".tar"), strings.HasSuffix(archive, ".tar.gz"), strings.HasSuffix(archive, ".tgz"):
		return extractTar(archive, dir)
	case strings.HasSuffix(archive, ".zip"):
		return extractZip(archive, dir)
	}
	return nil
}

func extractTar(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	var content io.Reader = f
	if !strings.HasSuffix(archive, ".tar") {
		if content, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for reader := tar.NewReader(content); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := extractEntry(root, header.Name, header.FileInfo(), reader); err != nil {
			return err
		}
	}
}

func extractZip(archive, dir string) error {
	reader, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer reader.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range reader.File {
		content, err := f.Open()
		if err != nil {
			return err
		}
		err = extractEntry(root, f.Name, f.FileInfo(), content)
		if err := errors.Join(err, content.Close()); err != nil {
			return err
		}
	}
	return nil
}

// extractEntry writes directories and regular files; the root keeps every name
// inside the sandbox.
func extractEntry(root *os.Root, name string, info os.FileInfo, content io.Reader) error {
	name = path.Clean(name)
	if info.IsDir() {
		return root.MkdirAll(name, 0o755)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the archive's entry %s is neither file nor directory", name)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
