//! Tokens of an OpenID Connect issuer: JSON Web Signatures in compact form (RFC 7515), with the claims of RFC 7519. Functions over
//! values, without IO.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::OidcPolicy;
use super::keys::Key;
use crate::scim::JwtProblem;

/// Longest token that is examined, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Tolerated difference between the clocks of the issuer and of this process.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Longest validity of a token.
const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The accepted algorithms. Both are asymmetric, so that a public key is never used as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// The algorithm of this name; none for all others, `none` among them.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// The parts of the header that are read. Keys and addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

/// A token whose claims were checked, and whose signature was not.
pub(super) struct Unverified<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    subject: String,
}

/// Whether this has the form of a signed token, three parts in base64url of which the first is a JSON object.
pub(crate) fn is_signed_token(token: &[u8]) -> bool {
    token.starts_with(b"eyJ") && token.split(|byte| *byte == b'.').count() == 3
}

impl<'a> Unverified<'a> {
    /// Parses a token and checks what it claims.
    pub(super) fn parse(token: &'a [u8], policy: &OidcPolicy, now: Timestamp) -> Result<Self, JwtProblem> {
        if token.len() > MAX_TOKEN {
            return Err(JwtProblem::Malformed);
        }
        let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(JwtProblem::Malformed);
        };
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtProblem::Malformed);
        let header = decode(&token[..first])?;
        let header: Header = object(&header).ok_or(JwtProblem::Malformed)?;
        let algorithm = Algorithm::of(&header.alg).ok_or(JwtProblem::Algorithm)?;
        if header.crit.is_some() {
            // An extension that must be understood, and none is.
            return Err(JwtProblem::Malformed);
        }
        let claims = decode(&token[first + 1..second])?;
        let claims: Claims = object(&claims).ok_or(JwtProblem::Malformed)?;
        let subject = check(claims, policy, now)?;
        let signature = decode(&token[second + 1..])?;
        Ok(Self { signed: &token[..second], signature, algorithm, kid: header.kid, subject })
    }

    /// Verifies the signature. Returns the subject.
    pub(super) fn verify(self, key: &Key) -> Result<String, JwtProblem> {
        if key.verifies(self.algorithm, self.signed, &self.signature) {
            Ok(self.subject)
        } else {
            Err(JwtProblem::Signature)
        }
    }
}

/// A JSON object. A list is none, though it could be read as one.
pub(super) fn object<T: DeserializeOwned>(document: &[u8]) -> Option<T> {
    if document.trim_ascii_start().first() == Some(&b'{') { serde_json::from_slice(document).ok() } else { None }
}

/// Checks the claims. Returns the subject.
fn check(claims: Claims, policy: &OidcPolicy, now: Timestamp) -> Result<String, JwtProblem> {
    if claims.iss.as_deref() != Some(&policy.issuer) {
        return Err(JwtProblem::Issuer);
    }
    let is_for_us = match &claims.aud {
        None => false,
        Some(Audience::One(one)) => *one == policy.audience,
        Some(Audience::Several(several)) => several.contains(&policy.audience),
    };
    if !is_for_us {
        return Err(JwtProblem::Audience);
    }
    let subject = claims.sub.filter(|sub| !sub.is_empty() && policy.subjects.contains(sub));
    let subject = subject.ok_or(JwtProblem::Subject)?;
    let end = claims.exp.ok_or(JwtProblem::Expiry).and_then(time)?;
    if now.duration_since(end) >= SKEW {
        return Err(JwtProblem::Expiry);
    }
    if end.duration_since(now) > MAX_LIFETIME + SKEW {
        return Err(JwtProblem::Lifetime);
    }
    for start in [claims.nbf, claims.iat].into_iter().flatten() {
        if time(start)?.duration_since(now) > SKEW {
            return Err(JwtProblem::NotYetValid);
        }
    }
    if let Some(issued) = claims.iat
        && end.duration_since(time(issued)?) > MAX_LIFETIME
    {
        return Err(JwtProblem::Lifetime);
    }
    Ok(subject)
}

/// A `NumericDate`, which may have a fraction.
#[expect(clippy::cast_possible_truncation, reason = "a number beyond the range of times is refused by the next line")]
fn time(seconds: f64) -> Result<Timestamp, JwtProblem> {
    Timestamp::from_second(seconds.floor() as i64).map_err(|_| JwtProblem::Malformed)
}
