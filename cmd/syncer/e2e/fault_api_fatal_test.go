package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// TestAPIFaults_fatal: faults that the operator must correct end the runs at once, exit code
// 1, with words on what to do; what was written until then is true, other apps go
// on, and the next sweep after it was mended completes everything. Nothing follows
// a redirect, and nothing is said to a server whose certificate is not believed.
func TestAPIFaults_fatal(t *testing.T) {
	t.Parallel()
	var visits atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	t.Cleanup(elsewhere.Close)
	ours, others := newCA(t), newCA(t)
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	ourCA := fmt.Sprintf("ca_file = %q", ours.file())
	expired := &faulty{name: "certificate expired", config: ourCA, says: []string{"renew the server's certificate"}}
	wrongHost := &faulty{name: "certificate of another host", config: ourCA, says: []string{"valid for im.example, not localhost"}}
	unknownCA := &faulty{name: "certificate of an unknown CA", config: ourCA, says: []string{"name it with ca_file"}}
	servers := []*tlsServer{
		expired.overTLS(t, ours.sign("localhost", before)),
		wrongHost.overTLS(t, ours.sign("im.example", later)),
		unknownCA.overTLS(t, others.sign("localhost", later)),
	}
	w := newFaultWorld(t, 130, 100,
		&faulty{name: "redirect", fault: imsim.Fault{Kind: imsim.FaultRedirect, Body: elsewhere.URL + "/moved"}, says: []string{"redirects (HTTP 302) to " + elsewhere.URL}},
		&faulty{name: "redirect within the server", fault: imsim.Fault{Kind: imsim.FaultRedirect}, says: []string{"redirects (HTTP 302) to another address"}},
		&faulty{name: "404", fault: imsim.Fault{Kind: imsim.FaultStatus, Status: 404, Echo: true}, says: []string{"HTTP 404 Not Found: check base_url"}},
		&faulty{name: "403 that repeats the call", fault: imsim.Fault{Kind: imsim.FaultHTML, Status: 403, Echo: true}, says: []string{"HTTP 403 Forbidden: check base_url"}},
		&faulty{name: "admin right taken away and given back", fault: imsim.Fault{Kind: imsim.FaultNotAdmin, After: 1}, says: []string{"set identifier to an account that is an app administrator", "make admin_user_id one of the server's admin users"}},
		&faulty{name: "code: fatal", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 60012, Echo: true},
			more: []imsim.Fault{{Path: "/user/*", Kind: imsim.FaultCode, Code: 1520, Echo: true}}, says: []string{"code 60012", "code 1520"}},
		&faulty{name: "code: unauthorised, twice, and a login refused", fault: imsim.Fault{Path: "/v4/*", Kind: imsim.FaultCode, Code: 70003, Echo: true}, renewed: true,
			more: []imsim.Fault{{Path: imsim.PathAdminToken, Kind: imsim.FaultCode, Code: 1002, Echo: true}}, says: []string{"check secret_key, sdk_app_id and identifier", "; check secret against that of the server"}},
		expired, wrongHost, unknownCA,
	)
	w.begin()
	stderr := w.backfill(exitFailed)
	w.each("", func(f *faulty) {
		f.ended("failed")
		f.explained()
		for _, app := range []string{f.tencent(), f.openIM()} {
			closed := w.events(stderr, app, "run closed")
			if len(closed) != 2 || closed[0].Level != "error" || closed[1].Level != "error" {
				w.t.Errorf("the log says of the end of the runs of %s: %+v", app, closed)
			}
			if again := w.events(stderr, app, "failed; it will be retried"); len(again) > 0 {
				w.t.Errorf("it is tried again: %+v", again)
			}
		}
		most := w.healthy()
		if f.renewed {
			most *= 2
		}
		if made := f.made() - f.calls; made > most {
			w.t.Errorf("%d calls were made, want no more than %d", made, most)
		}
		f.failures()
		f.nothingInvented()
		f.noFlood()
	})
	if n := visits.Load(); n > 0 {
		t.Errorf("%d calls followed a redirect", n)
	}
	w.spared()
	for _, s := range servers {
		if n := s.calls.Load(); n > 0 {
			t.Errorf("%d calls reached a server whose certificate is not believed", n)
		}
		s.certificate.Store(ours.sign("localhost", later))
	}
	w.heals()
}

// tlsServer is a simulator's, reached with a certificate that can be replaced.
type tlsServer struct {
	certificate atomic.Pointer[tls.Certificate]
	calls       atomic.Int32
}

// overTLS lets the apps of a fault reach their backend over TLS.
func (f *faulty) overTLS(t *testing.T, certificate *tls.Certificate) *tlsServer {
	t.Helper()
	s := &tlsServer{}
	s.certificate.Store(certificate)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		f.sim.ServeHTTP(w, r)
	}))
	server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil }}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that are to fail
	server.StartTLS()
	t.Cleanup(server.Close)
	f.baseURL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	return s
}

// authority signs certificates.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newCA(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Our CA"}, NotBefore: time.Now().Add(-3 * time.Hour), NotAfter: time.Now().Add(3 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, der := a.made(template, template, nil)
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.key, a.certificate = key, certificate
	return a
}

// made makes a key and its certificate, which signs itself where there is no signer.
func (a *authority) made(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

// sign makes a server's certificate.
func (a *authority) sign(host string, until time.Time) *tls.Certificate {
	a.t.Helper()
	key, der := a.made(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.certificate, a.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// file is where the CA's certificate is written.
func (a *authority) file() string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}
