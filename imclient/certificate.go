package imclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxCAs limits the size of a certificate file, in bytes. A system's own has 256 KiB.
const maxCAs = 4 << 20

// ReadCAs reads a file of PEM certificates of at most 4 MiB.
func ReadCAs(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCAs+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCAs {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxCAs)
	}
	pool, found := x509.NewCertPool(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of %s cannot be read: %w", found+1, path, err)
		}
		pool.AddCert(certificate)
		found++
	}
	if found == 0 {
		return nil, fmt.Errorf("%s holds no certificate (want PEM: -----BEGIN CERTIFICATE-----)", path)
	}
	return pool, nil
}

// certificateAdvice returns what to do about an untrusted certificate, "" if err is about
// something else.
func certificateAdvice(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		return ""
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "base_url must name the server as its certificate does"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "renew the server's certificate, or set this machine's clock"
	}
	return "if the server's certificate is of a CA of your own, put that CA's certificate into a file and name it with ca_file"
}
