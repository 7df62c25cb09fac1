//! The key that checks a token, and the one algorithm it is for.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Header};

use crate::secret::Secret;

/// A shorter secret, in bytes, is warned about: HS256 asks for a key of the size of its hash (RFC 7518 §3.2), but
/// an application's present secret may be what it is.
pub const SECRET_BYTES_ADVISED: usize = 32;
/// An RSA key of 2,048 bits (required by RFC 7518 §3.3) is at least this long in PKCS#1 form.
const RSA_BYTES_MIN: usize = 256;
/// A point of P-256, uncompressed: 0x04 and two coordinates. ES256 is for this curve only (RFC 7518 §3.4).
const P256_POINT_BYTES: usize = 65;

/// Why a key is not taken. The texts hold nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("is empty")]
    Empty,
    #[error("holds a private key; give the public one")]
    Private,
    #[error("is not a public key in PEM form (BEGIN PUBLIC KEY): RSA, EC P-256 or Ed25519")]
    NotPublicPem,
    #[error("is an RSA key below 2048 bits (RFC 7518 §3.3)")]
    SmallRsa,
    #[error("is an EC key that is not on P-256, which ES256 needs")]
    Curve,
    #[error(
        "is a key of a pair, not a secret: with a public one everybody could sign tokens. The public key goes into \
         JWT_PUBLIC_KEY_FILE"
    )]
    NoSecret,
}

/// Where the key for a token comes from. Today it is one key, known at start; a JWKS would be several, chosen by
/// `kid` and replaced as a whole, behind the same `choose`.
#[derive(Debug, Clone)]
pub struct KeySource(Arc<Key>);

#[derive(Debug)]
pub(super) struct Key {
    /// Fixed with the key: were it taken from the token, a public key could be used as an HMAC secret.
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

impl KeySource {
    /// HS256 with a shared secret.
    ///
    /// # Errors
    /// If it is empty, or the text of a key that comes in pairs.
    pub fn from_secret(secret: &Secret) -> Result<Self, KeyError> {
        let bytes = secret.expose().as_bytes();
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        if is_of_a_pair(secret.expose()) {
            return Err(KeyError::NoSecret);
        }
        Ok(Self::one(Algorithm::HS256, DecodingKey::from_secret(bytes)))
    }

    /// RS256, ES256 or EdDSA, as the key is RSA, P-256 or Ed25519.
    ///
    /// # Errors
    /// If it is no such key.
    pub fn from_public_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        // jsonwebtoken would take certificates too, and then the wrong bytes out of some of them.
        if !pem.contains("-----BEGIN PUBLIC KEY-----") && !pem.contains("-----BEGIN RSA PUBLIC KEY-----") {
            return Err(KeyError::NotPublicPem);
        }
        let bytes = pem.as_bytes();
        let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
        if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
            return Ok(Self::one(Algorithm::EdDSA, key));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
            let fits = length(&key) == P256_POINT_BYTES;
            return if fits { Ok(Self::one(Algorithm::ES256, key)) } else { Err(KeyError::Curve) };
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
            let fits = length(&key) >= RSA_BYTES_MIN;
            return if fits { Ok(Self::one(Algorithm::RS256, key)) } else { Err(KeyError::SmallRsa) };
        }
        Err(KeyError::NotPublicPem)
    }

    fn one(algorithm: Algorithm, decoding: DecodingKey) -> Self {
        Self(Arc::new(Key { algorithm, decoding }))
    }

    /// The key for a token with this header; `None` if it asks for an algorithm that is not the key's.
    pub(super) fn choose(&self, header: &Header) -> Option<&Key> {
        (header.alg == self.0.algorithm).then_some(&*self.0)
    }
}

/// PEM (RFC 7468), OpenSSH's one line, or a JWK (RFC 7517) that is no octet sequence. Taken for a secret, the public half
/// would let everybody sign who knows it: "algorithm confusion" (RFC 8725 §2.1), this time by configuration.
fn is_of_a_pair(text: &str) -> bool {
    let text = text.trim_start();
    let jwk = serde_json::from_str::<serde_json::Value>(text).ok();
    let kty = jwk.as_ref().and_then(|jwk| jwk.get("kty")?.as_str());
    text.contains("-----BEGIN ")
        || ["ssh-", "ecdsa-sha2-"].iter().any(|name| text.starts_with(name))
        || kty.is_some_and(|kty| kty != "oct")
}
