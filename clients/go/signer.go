package aril

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	signatureHeader  = "aril-signature"
	signatureContext = "aril-signed-request-v1"
	maxKeyFileBytes  = 4_096
	keyIDDigits      = 16
)

// Signer signs jobs and cancels with one Ed25519 key, where workers ask for that, so that nobody else
// can send them. Its clock has to be close to the brokers'.
type Signer struct {
	key   ed25519.PrivateKey
	keyID string
	now   func() time.Time
}

// NewSigner returns a signer for a key. `keyID` names the file of the public key at the workers,
// without .pem; "" stands for the one that `aril keys new` gives. The error is an [ErrBadKey].
func NewSigner(key ed25519.PrivateKey, keyID string) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: not an Ed25519 key", ErrBadKey)
	}
	if keyID == "" {
		digest := sha256.Sum256(key.Public().(ed25519.PublicKey))
		keyID = hex.EncodeToString(digest[:])[:keyIDDigits]
	}
	if !isKeyID(keyID) {
		return nil, fmt.Errorf("%w: %q cannot name a key (lower case, digits, -)", ErrBadKey, keyID)
	}
	return &Signer{key: key, keyID: keyID, now: time.Now}, nil
}

// SignerFromFile reads a private key in PEM (PKCS #8, not encrypted), as `aril keys new` and openssl
// write it. A file that everybody may read is refused. The error is an [ErrBadKey].
func SignerFromFile(path, keyID string) (*Signer, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: %s: not in PEM", ErrBadKey, path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: %s: not an Ed25519 key in PKCS #8 without a password", ErrBadKey, path)
	}
	return NewSigner(key, keyID)
}

func readPrivate(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if about.Mode().Perm()&0o006 != 0 {
		return nil, fmt.Errorf("%s: everybody on this machine may read it (chmod 600)", path)
	}
	return io.ReadAll(io.LimitReader(file, maxKeyFileBytes))
}

// KeyID names the key; the workers have its public half as <tenant>/<key id>.pem.
func (s *Signer) KeyID() string { return s.keyID }

// String names the key and does not hold it.
func (s *Signer) String() string { return "signer " + s.keyID }

// GoString does the same for %#v.
func (s *Signer) GoString() string { return s.String() }

// header returns the value of the header of one record, signed now.
func (s *Signer) header(tenant, topic string, partition int32, key, value []byte) []byte {
	signedMS := s.now().UnixMilli()
	message := signedMessage(tenant, s.keyID, topic, partition, key, signedMS, value)
	signature := ed25519.Sign(s.key, message)
	return fmt.Appendf(nil, "%d.%s.%s.%d.%x", version, tenant, s.keyID, signedMS, signature)
}

// signedMessage returns the bytes that are signed: each field has its length before it, so no two
// requests have the same.
func signedMessage(tenant, keyID, topic string, partition int32, key []byte, signedMS int64, value []byte) []byte {
	fields := [][]byte{
		[]byte(tenant),
		[]byte(keyID),
		[]byte(topic),
		binary.BigEndian.AppendUint32(nil, uint32(partition)),
		key,
		binary.BigEndian.AppendUint64(nil, uint64(signedMS)),
		value,
	}
	message := []byte(signatureContext)
	for _, each := range fields {
		message = binary.BigEndian.AppendUint32(message, uint32(len(each)))
		message = append(message, each...)
	}
	return message
}
