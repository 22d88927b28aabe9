package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/ztunnel/agent/cni"
	"github.com/tulle-mesh/tulle/ztunnel/agent/enrol"
)

// Pods does what is asked; *enrol.Manager is one.
type Pods interface {
	Enrol(ctx context.Context, pod enrol.Pod) error
	Remove(ctx context.Context, uid string) error
	Gone(ctx context.Context, uid string) error
	Pods() []enrol.Status
	Pod(uid string) (enrol.Status, bool)
}

// CNI answers the CNI plugin; *kube.Controller is one.
type CNI interface {
	Add(ctx context.Context, q cni.Request) (cni.Answer, error)
	Delete(ctx context.Context, q cni.Request) (cni.Answer, error)
	Check(ctx context.Context, q cni.Request) (cni.Answer, error)
}

// Config makes a Server. Socket, Pods and Ready are required.
type Config struct {
	// Socket is the path of the unix socket.
	Socket string
	Pods   Pods
	// CNI may be nil: no plugin is answered then.
	CNI CNI
	// Ready answers /healthz/ready.
	Ready http.Handler
	// Logger may be nil.
	Logger *zap.Logger
}

// Server serves the interface. Make it with Listen.
type Server struct {
	ln   net.Listener
	path string
	made os.FileInfo
	http *http.Server
	log  *zap.Logger
}

// Listen makes the socket, for the owner only, in place of what a dead agent
// left there.
func Listen(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	path := cfg.Socket
	fail := func(err error) (*Server, error) { return nil, fmt.Errorf("API socket %s: %w", path, err) }
	// Bound under another name until its permissions are set, so that there is no
	// moment in which others may connect.
	temporary := path + "." + strconv.Itoa(os.Getpid())
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return fail(err)
	}
	ln.SetUnlinkOnClose(false)
	s := &Server{ln: ln, path: path, log: cfg.Logger}
	if err = os.Chmod(temporary, 0o600); err == nil {
		s.made, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		ln.Close()
		os.Remove(temporary)
		return fail(err)
	}
	s.http = &http.Server{
		Handler: Handler(cfg), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: zap.NewStdLog(cfg.Logger),
	}
	return s, nil
}

// Run serves until ctx ends. Requests that run then are broken off.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.ln) }()
	select {
	case err := <-done:
		s.Close()
		return fmt.Errorf("API socket %s: %w", s.path, err)
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := s.http.Shutdown(sctx); err != nil {
		s.http.Close()
	}
	<-done
	s.Close()
	return nil
}

// Close removes the socket; needed only when Run is not called.
func (s *Server) Close() {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		os.Remove(s.path)
	}
	s.ln.Close()
}

// Handler is the interface without its socket.
func Handler(cfg Config) http.Handler {
	pods := cfg.Pods
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/pods/{uid}", func(w http.ResponseWriter, r *http.Request) { enrolPod(w, r, pods) })
	mux.HandleFunc("DELETE /v1/pods/{uid}", func(w http.ResponseWriter, r *http.Request) { removePod(w, r, pods) })
	mux.HandleFunc("GET /v1/pods/{uid}", func(w http.ResponseWriter, r *http.Request) {
		status, ok := pods.Pod(r.PathValue("uid"))
		if !ok {
			answer(w, http.StatusNotFound, refusal{Reason: "the pod is not enrolled"})
			return
		}
		answer(w, http.StatusOK, status)
	})
	mux.HandleFunc("GET /v1/pods", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, struct {
			Pods []enrol.Status `json:"pods"`
		}{pods.Pods()})
	})
	mux.Handle("GET /healthz/ready", cfg.Ready)
	if cfg.CNI != nil {
		mux.HandleFunc("POST /v1/cni/add", plugin(cfg.CNI.Add))
		mux.HandleFunc("POST /v1/cni/del", plugin(cfg.CNI.Delete))
		mux.HandleFunc("POST /v1/cni/check", plugin(cfg.CNI.Check))
	}
	return mux
}

type refusal = cni.Refusal

// plugin answers one kind of the plugin's requests.
func plugin(do func(context.Context, cni.Request) (cni.Answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := cni.Decode(http.MaxBytesReader(w, r.Body, cni.MaxRequest))
		if err != nil {
			answer(w, http.StatusBadRequest, refusal{Reason: "request body: " + err.Error()})
			return
		}
		a, err := do(r.Context(), q)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, a)
	}
}

func removePod(w http.ResponseWriter, r *http.Request, pods Pods) {
	remove := pods.Remove
	switch s := r.URL.Query().Get("gone"); s {
	case "true":
		remove = pods.Gone
	case "", "false":
	default:
		answer(w, http.StatusBadRequest, refusal{Reason: fmt.Sprintf("gone %q: want true or false", s)})
		return
	}
	if err := remove(r.Context(), r.PathValue("uid")); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func enrolPod(w http.ResponseWriter, r *http.Request, pods Pods) {
	pod, err := decode(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		answer(w, http.StatusBadRequest, refusal{Reason: "request body: " + err.Error()})
		return
	}
	pod.UID = r.PathValue("uid")
	ctx := r.Context()
	if s := r.URL.Query().Get("timeout"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 || d > enrol.Timeout {
			answer(w, http.StatusBadRequest, refusal{Reason: fmt.Sprintf("timeout %q: want a duration up to %v", s, enrol.Timeout)})
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if err := pods.Enrol(ctx, pod); err != nil {
		refuse(w, err)
		return
	}
	status, ok := pods.Pod(pod.UID)
	if !ok {
		answer(w, http.StatusServiceUnavailable, refusal{Reason: "the pod was removed meanwhile"})
		return
	}
	answer(w, http.StatusOK, status)
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	var invalid *enrol.InvalidError
	if errors.As(err, &invalid) {
		code = http.StatusBadRequest
	}
	answer(w, code, refusal{Reason: err.Error()})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
