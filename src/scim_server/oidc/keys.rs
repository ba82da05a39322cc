//! Public keys of an issuer (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use super::jwt::{Algorithm, object};

/// Most keys of one issuer.
const MAX_KEYS: usize = 100;

/// Lengths of an RSA modulus, in bytes: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key for one of the accepted algorithms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point on P-256.
    Ec(Vec<u8>),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

/// The usable keys of a key set. Keys for other purposes and algorithms are left out. None when the document is no key set.
pub(super) fn parse(document: &[u8]) -> Option<Vec<Key>> {
    let set: KeySet = object(document)?;
    let raw =
        set.keys.into_iter().filter(Value::is_object).take(MAX_KEYS).filter_map(|key| serde_json::from_value(key).ok());
    Some(raw.filter_map(usable).collect())
}

fn usable(raw: RawKey) -> Option<Key> {
    let signs = raw.purpose.is_none_or(|purpose| purpose == "sig")
        && raw.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let material = match &*raw.kty {
        "RSA" => {
            let n: Vec<u8> = decode(&raw.n)?.into_iter().skip_while(|byte| *byte == 0).collect();
            if !RSA_BYTES.contains(&n.len()) {
                return None;
            }
            Material::Rsa { n, e: decode(&raw.e)? }
        }
        "EC" if raw.crv == "P-256" => {
            let (x, y) = (decode(&raw.x)?, decode(&raw.y)?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            Material::Ec([vec![4], x, y].concat())
        }
        _ => return None,
    };
    let key = Key { kid: raw.kid, material };
    let fits = raw.alg.is_none_or(|alg| Algorithm::of(&alg) == Some(key.algorithm()));
    (signs && fits).then_some(key)
}

impl Key {
    /// The algorithm that the key is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::Ec(_) => Algorithm::Es256,
        }
    }

    /// Whether the signature was made with this algorithm and the private key of this one. RSA keys of fewer than 2,048 bits
    /// verify nothing.
    pub(super) fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            (Material::Ec(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// The key of a token: the one with its id, or the only one for its algorithm when the token names none.
pub(super) fn choose<'k>(keys: &'k [Key], kid: Option<&str>, algorithm: Algorithm) -> Option<&'k Key> {
    let mut fitting =
        keys.iter().filter(|key| key.algorithm() == algorithm && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid)));
    let first = fitting.next();
    // Several keys of one id, or several to guess from, identify none.
    first.filter(|_| fitting.next().is_none())
}
