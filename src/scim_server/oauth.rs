//! OAuth 2.0 clients of identity providers, and the access tokens that are issued to them (RFC 6749 §4.4).
//!
//! An access token is signed with a key that is derived from the client's secret. Only the public key and the SHA-256 of the
//! secret are kept: the secret itself arrives with each request for a token, and the private key is derived from it then.
//! Every process that knows the client accepts the token, also after a restart, until its end or until the client changes.

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::model::ProviderName;

/// Validity of an access token.
pub(super) const LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// Tolerated difference between the clocks of two processes.
const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The beginning of every access token.
const PREFIX: &str = "rolecall1.";

/// Longest access token that is examined.
const MAX_TOKEN: usize = 1024;

/// Separates these keys and signatures from others that might be derived from the same secret.
const PURPOSE: &[u8] = b"rolecall oauth client, version 1";

/// What is kept of a client's id and secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientKeys {
    id_sha256: [u8; 32],
    secret_sha256: [u8; 32],
    public_key: [u8; 32],
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKeys").finish_non_exhaustive()
    }
}

/// A client that may ask for access tokens of one identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcceptedClient {
    /// The name in `spec.scim.oauthClients`.
    pub(crate) name: String,
    /// Its id and secret.
    pub(crate) keys: ClientKeys,
    /// End of its validity.
    pub(crate) not_after: Option<Timestamp>,
}

struct SeedLength;

impl KeyType for SeedLength {
    fn len(&self) -> usize {
        32
    }
}

/// The key pair of a client. None when the key cannot be derived, which does not happen with this length.
fn key_pair(id: &[u8], secret: &[u8]) -> Option<Ed25519KeyPair> {
    let derived = Salt::new(HKDF_SHA256, PURPOSE).extract(secret);
    let mut seed = [0; 32];
    // The id is part of the key, so that a change of the id ends the tokens too.
    derived.expand(&[id], SeedLength).and_then(|output| output.fill(&mut seed)).ok()?;
    Ed25519KeyPair::from_seed_unchecked(&seed).ok()
}

impl ClientKeys {
    /// What is kept of this id and secret.
    #[must_use]
    pub(crate) fn of(id: &[u8], secret: &[u8]) -> Option<Self> {
        let public_key = key_pair(id, secret)?.public_key().as_ref().try_into().ok()?;
        let (id_sha256, secret_sha256) = (Sha256::digest(id).into(), Sha256::digest(secret).into());
        Some(Self { id_sha256, secret_sha256, public_key })
    }

    /// The SHA-256 of the secret, by which a secret of two providers is detected.
    pub(super) fn secret_sha256(&self) -> [u8; 32] {
        self.secret_sha256
    }

    /// Whether these are the id and secret, in constant time.
    pub(super) fn is(&self, id: &[u8], secret: &[u8]) -> Choice {
        let (id, secret): ([u8; 32], [u8; 32]) = (Sha256::digest(id).into(), Sha256::digest(secret).into());
        self.id_sha256.ct_eq(&id) & self.secret_sha256.ct_eq(&secret)
    }
}

/// The content of an access token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// The provider.
    p: String,
    /// The name of the client.
    c: String,
    /// Unix times of issue and end.
    iat: i64,
    exp: i64,
    /// Makes the token unique.
    jti: String,
}

/// Why an access token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It has ended.
    Ended,
    /// It was not issued by this server, or its client has changed since.
    Invalid,
}

/// An access token that was split into its parts and not verified.
pub(super) struct Presented<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    payload: Payload,
}

impl<'a> Presented<'a> {
    /// Splits a token. None when it does not have the form of an access token.
    pub(super) fn split(token: &'a [u8]) -> Option<Self> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= MAX_TOKEN)?;
        let (signed, signature) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed).ok()?).ok()?;
        Some(Self { signed, signature, payload })
    }

    /// The name of the provider that it says it is for.
    pub(super) fn provider(&self) -> &str {
        &self.payload.p
    }

    /// Verifies the token against the clients of the provider that it is presented to. Without such a client, the work is the same.
    pub(super) fn verify<'c>(
        &self,
        provider: &str,
        clients: &'c [AcceptedClient],
        now: Timestamp,
    ) -> Result<&'c AcceptedClient, Rejected> {
        static NOBODY: LazyLock<[u8; 32]> =
            LazyLock::new(|| ClientKeys::of(b"nobody", b"nothing").map_or([0; 32], |keys| keys.public_key));
        let client = clients.iter().find(|client| client.name == self.payload.c);
        let key = client.map_or(*NOBODY, |client| client.keys.public_key);
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(self.signed.as_bytes(), &self.signature).is_ok();
        let client = client.filter(|_| verified && self.payload.p == provider).ok_or(Rejected::Invalid)?;
        let (Ok(issued), Ok(end)) =
            (Timestamp::from_second(self.payload.iat), Timestamp::from_second(self.payload.exp))
        else {
            return Err(Rejected::Invalid);
        };
        if issued.duration_since(now) > SKEW || end.duration_since(issued) > LIFETIME {
            return Err(Rejected::Invalid);
        }
        if end <= now || client.not_after.is_some_and(|end| end <= now) {
            return Err(Rejected::Ended);
        }
        Ok(client)
    }
}

/// Issues an access token to a client that presented this id and secret. Returns it with its validity.
pub(super) fn issue(
    provider: &ProviderName,
    client: &AcceptedClient,
    (id, secret): (&[u8], &[u8]),
    now: Timestamp,
) -> Option<(String, SignedDuration)> {
    let left = client.not_after.map_or(LIFETIME, |end| end.duration_since(now).min(LIFETIME));
    let validity = SignedDuration::from_secs(left.as_secs());
    let payload = Payload {
        p: provider.to_string(),
        c: client.name.clone(),
        iat: now.as_second(),
        exp: now.as_second() + validity.as_secs(),
        jti: uuid::Uuid::new_v4().simple().to_string(),
    };
    let signed = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).ok()?);
    let signature = URL_SAFE_NO_PAD.encode(key_pair(id, secret)?.sign(signed.as_bytes()));
    Some((format!("{PREFIX}{signed}.{signature}"), validity))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] = b"rolecall-okta";
    const SECRET: &[u8] = b"a-client-secret-of-more-than-32-characters";

    fn client(name: &str, id: &[u8], secret: &[u8]) -> AcceptedClient {
        AcceptedClient { name: name.to_owned(), keys: ClientKeys::of(id, secret).unwrap(), not_after: None }
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn okta() -> ProviderName {
        ProviderName::new("okta").unwrap()
    }

    fn token_of(client: &AcceptedClient) -> String {
        issue(&okta(), client, (ID, SECRET), now()).unwrap().0
    }

    fn verified(token: &str, clients: &[AcceptedClient], at: Timestamp) -> Result<String, Rejected> {
        let presented = Presented::split(token.as_bytes()).ok_or(Rejected::Invalid)?;
        presented.verify("okta", clients, at).map(|client| client.name.clone())
    }

    #[test]
    fn a_token_is_accepted_for_an_hour_by_every_process_that_knows_the_client() {
        let token = token_of(&client("a", ID, SECRET));
        let elsewhere = [client("b", b"other", b"another-secret"), client("a", ID, SECRET)];
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        assert_eq!(verified(&token, &elsewhere, now()), Ok("a".to_owned()));
        assert_eq!(verified(&token, &elsewhere, at(3599)), Ok("a".to_owned()));
        assert_eq!(verified(&token, &elsewhere, at(3600)), Err(Rejected::Ended));
        assert_eq!(verified(&token, &elsewhere, at(-60)), Ok("a".to_owned()), "another clock is slow");
        assert_eq!(verified(&token, &elsewhere, at(-61)), Err(Rejected::Invalid));
    }

    #[test]
    fn a_change_of_secret_id_or_name_ends_the_tokens() {
        let token = token_of(&client("a", ID, SECRET));
        for changed in [client("a", ID, b"another-secret"), client("a", b"other", SECRET), client("b", ID, SECRET)] {
            assert_eq!(verified(&token, &[changed], now()), Err(Rejected::Invalid));
        }
        assert_eq!(verified(&token, &[], now()), Err(Rejected::Invalid));
    }

    #[test]
    fn a_token_of_one_provider_is_not_accepted_for_another() {
        let client = client("a", ID, SECRET);
        let token = token_of(&client);
        let presented = Presented::split(token.as_bytes()).unwrap();
        assert_eq!(presented.verify("entra", &[client], now()).err(), Some(Rejected::Invalid));
    }

    #[test]
    fn the_end_of_the_client_is_the_end_of_its_tokens() {
        let end = now() + SignedDuration::from_secs(90);
        let mut client = AcceptedClient { not_after: Some(end), ..client("a", ID, SECRET) };
        let (token, validity) = issue(&okta(), &client, (ID, SECRET), now()).unwrap();
        assert_eq!(validity.as_secs(), 90);
        assert_eq!(verified(&token, &[client.clone()], end), Err(Rejected::Ended));
        client.not_after = Some(now());
        assert_eq!(verified(&token, &[client], now()), Err(Rejected::Ended), "it was brought forward");
    }

    #[test]
    fn a_changed_token_is_refused_wherever_it_was_changed() {
        let client = [client("a", ID, SECRET)];
        let token = token_of(&client[0]);
        for at in 0..token.len() {
            for by in [b'A', b'.', b'_'] {
                let mut changed = token.clone().into_bytes();
                if changed[at] == by {
                    continue;
                }
                changed[at] = by;
                let changed = String::from_utf8(changed).unwrap();
                assert!(verified(&changed, &client, now()).is_err(), "{changed}");
            }
        }
        for other in ["", "rolecall1.", "rolecall1..", "rolecall1.e30.e30", &token[..token.len() - 1]] {
            assert!(verified(other, &client, now()).is_err(), "{other}");
        }
        assert!(Presented::split(format!("rolecall1.{}.x", "a".repeat(2000)).as_bytes()).is_none());
    }

    #[test]
    fn id_and_secret_are_compared_as_a_pair_and_not_shown() {
        let keys = ClientKeys::of(ID, SECRET).unwrap();
        assert!(bool::from(keys.is(ID, SECRET)));
        assert!(!bool::from(keys.is(ID, ID)) && !bool::from(keys.is(SECRET, SECRET)));
        assert_eq!(format!("{keys:?}"), "ClientKeys { .. }");
    }
}
