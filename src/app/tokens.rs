//! Which bearer tokens each provider accepts, out of `IdentityProvider`s and Secrets. Only hashes are held and stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::condition::reason;
use crate::api::manifest::SecretData;
use crate::api::{IdentityProviderSpec, SecretKey};
use crate::http::AcceptedToken;
use crate::model::ProviderName;

/// What the keys of a Secret amount to, as it is kept: hashes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHashes {
    token: Result<[u8; 32], String>,
    token_sha256: Result<[u8; 32], String>,
}

impl SecretHashes {
    /// Hashes what can be a token.
    #[must_use]
    pub fn of(secret: &SecretData) -> Self {
        let hash = |key| secret.token_sha256(key).map_err(|error| error.reason().to_owned());
        Self { token: hash(SecretKey::Token), token_sha256: hash(SecretKey::TokenSha256) }
    }

    fn get(&self, key: SecretKey) -> &Result<[u8; 32], String> {
        match key {
            SecretKey::Token => &self.token,
            SecretKey::TokenSha256 => &self.token_sha256,
        }
    }
}

/// The tokens of all providers: those that can be used, and why the others cannot (provider → token → reason).
#[derive(Debug, Default)]
pub struct Resolved {
    /// What is accepted.
    pub accepted: BTreeMap<ProviderName, Vec<AcceptedToken>>,
    /// What is not, and why.
    pub problems: BTreeMap<ProviderName, BTreeMap<String, &'static str>>,
}

/// Resolves the tokens of all providers against the Secrets by name.
#[must_use]
pub fn resolve(
    providers: &BTreeMap<ProviderName, IdentityProviderSpec>,
    secrets: &BTreeMap<String, SecretHashes>,
) -> Resolved {
    let mut resolved = Resolved::default();
    for (provider, spec) in providers {
        let accepted = resolved.accepted.entry(provider.clone()).or_default();
        for token in &spec.scim.tokens {
            let hash = match secrets.get(&token.secret_ref.name) {
                None => Err(reason::TOKEN_SECRET_NOT_FOUND),
                Some(secret) => secret.get(token.secret_ref.key).clone().map_err(|why| word(&why)),
            };
            match hash {
                Ok(sha256) => accepted.push(AcceptedToken {
                    name: token.name.clone(),
                    sha256,
                    not_after: token.not_after.as_ref().map(|time| time.0),
                }),
                Err(why) => {
                    resolved.problems.entry(provider.clone()).or_default().insert(token.name.clone(), why);
                }
            }
        }
    }
    resolved
}

/// The stored reason as a word of the list.
fn word(stored: &str) -> &'static str {
    if stored == reason::TOKEN_KEY_NOT_FOUND { reason::TOKEN_KEY_NOT_FOUND } else { reason::TOKEN_INVALID }
}
