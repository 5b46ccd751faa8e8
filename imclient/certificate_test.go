package imclient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a CA of its own.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Our CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.certificate, a.key = a.sign(template, template)
	return a
}

// sign makes a certificate; the CA's own when it has none yet.
func (a *authority) sign(template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate, key
}

// file writes the CA's certificate to a file.
func (a *authority) file() string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), "ca.pem")
	text := "Our CA\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// serve answers with a certificate for a name, valid until then, at localhost.
func (a *authority) serve(name string, until time.Time) (url string) {
	a.t.Helper()
	certificate, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.certificate)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that are to fail
	server.StartTLS()
	a.t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

// TestPost_certificates: a server's certificate is always looked at, and a CA of
// one's own takes the place of the system's.
func TestPost_certificates(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	for _, test := range []struct {
		name string
		url  string
		cas  *authority // nil: the system's
		want []string   // of the error; none: it is believed
	}{
		{"our CA", ours.serve("localhost", time.Now().Add(time.Hour)), ours, nil},
		{"a CA that the system does not know", ours.serve("localhost", time.Now().Add(time.Hour)), nil, []string{"signed by unknown authority", "name it with ca_file"}},
		{"a CA that is not ours", others.serve("localhost", time.Now().Add(time.Hour)), ours, []string{"unknown authority", "ca_file"}},
		{"expired", ours.serve("localhost", time.Now().Add(-time.Hour)), ours, []string{"has expired", "renew the server's certificate, or set this machine's clock"}},
		{"another host", ours.serve("im.example", time.Now().Add(time.Hour)), ours, []string{"valid for im.example, not localhost", "base_url must name the server as its certificate does"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := HTTPConfig{Provider: ProviderOpenIM, Timeout: 30 * time.Second, Now: time.Now}
			if test.cas != nil {
				var err error
				if config.CAs, err = ReadCAs(test.cas.file()); err != nil {
					t.Fatal(err)
				}
			}
			h := NewHTTP(config)
			defer h.Close()
			reply, err := post(t.Context(), h, test.url)
			if len(test.want) == 0 {
				if err != nil || reply.Fault != "" || reply.Bytes != 2 {
					t.Errorf("Post = %+v, %v", reply, err)
				}
				return
			}
			if err == nil || ClassOf(err) != ClassFatal {
				t.Fatalf("Post: %v, want a fatal error", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), querySecret) {
					t.Errorf("Post: %v; want %q", err, want)
				}
			}
		})
	}
}

func TestReadCAs_bad(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ text, want string }{
		"none":    {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate"},
		"garbage": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 of "},
		"endless": {strings.Repeat("x", maxCAs+1), "more than"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCAs(path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := ReadCAs(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a file that is not there is read")
	}
}
