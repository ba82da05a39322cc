//! Which bearer tokens each provider accepts, out of `IdentityProvider`s and Secrets. Only hashes are held.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::api::condition::reason;
use crate::api::manifest::SecretData;
use crate::api::{IdentityProviderSpec, SecretKey};
use crate::model::ProviderName;

/// The shortest token that is accepted: 128 bits in base64, rounded down.
pub const MIN_TOKEN_BYTES: usize = 20;
/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// What the keys of a Secret amount to, as it is kept: hashes only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecretHashes {
    /// The hash that key `token` or `tokenSHA256` gives, in hex; or the reason why it gives none.
    keys: BTreeMap<String, Result<String, String>>,
}

impl SecretHashes {
    /// Hashes what can be a token. Other keys of the Secret are not looked at.
    #[must_use]
    pub fn of(secret: &SecretData) -> Self {
        let mut keys = BTreeMap::new();
        for key in [SecretKey::Token, SecretKey::TokenSha256] {
            let Some(value) = secret.data.get(key.as_str()) else { continue };
            let value = value.trim_ascii();
            let hash = match key {
                SecretKey::Token if value.len() < MIN_TOKEN_BYTES => Err(reason::TOKEN_INVALID.to_owned()),
                SecretKey::Token if value.len() > MAX_TOKEN_BYTES => Err(reason::TOKEN_INVALID.to_owned()),
                SecretKey::Token => Ok(hex(&Sha256::digest(value).into())),
                SecretKey::TokenSha256 => match std::str::from_utf8(value).ok().and_then(unhex) {
                    Some(hash) => Ok(hex(&hash)),
                    None => Err(reason::TOKEN_INVALID.to_owned()),
                },
            };
            keys.insert(key.as_str().to_owned(), hash);
        }
        Self { keys }
    }
}

fn hex(hash: &TokenHash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<TokenHash> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut hash = [0_u8; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// One token of a provider, as resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedToken {
    /// Its name in `spec.scim.tokens`.
    pub name: String,
    /// When it ends.
    pub not_after: Option<Timestamp>,
    /// Its hash, or the reason why it cannot be used.
    pub hash: Result<TokenHash, String>,
}

/// Resolves the tokens of all providers. A token that two providers have is refused for both: nobody could say whose
/// people a request is about.
#[must_use]
pub fn resolve(
    providers: &BTreeMap<ProviderName, IdentityProviderSpec>,
    secrets: &BTreeMap<String, SecretHashes>,
) -> BTreeMap<ProviderName, Vec<ResolvedToken>> {
    let mut resolved = BTreeMap::new();
    let mut owners: HashMap<TokenHash, ProviderName> = HashMap::new();
    let mut shared: Vec<TokenHash> = Vec::new();
    for (provider, spec) in providers {
        let mut tokens = Vec::new();
        for token in &spec.scim.tokens {
            let hash = match secrets.get(&token.secret_ref.name) {
                None => Err(reason::TOKEN_SECRET_NOT_FOUND.to_owned()),
                // The key that is asked for, or the other one where the Secret has only that.
                Some(secret) => match secret.keys.get(token.secret_ref.key.as_str()).or(secret.keys.values().next()) {
                    None => Err(reason::TOKEN_KEY_NOT_FOUND.to_owned()),
                    Some(Err(why)) => Err(why.clone()),
                    Some(Ok(text)) => unhex(text).ok_or_else(|| reason::TOKEN_INVALID.to_owned()),
                },
            };
            if let Ok(hash) = &hash
                && owners.insert(*hash, provider.clone()).is_some_and(|owner| owner != *provider)
            {
                shared.push(*hash);
            }
            tokens.push(ResolvedToken {
                name: token.name.clone(),
                not_after: token.not_after.as_ref().map(|time| time.0),
                hash,
            });
        }
        resolved.insert(provider.clone(), tokens);
    }
    for token in resolved.values_mut().flatten() {
        if token.hash.as_ref().is_ok_and(|hash| shared.contains(hash)) {
            token.hash = Err(reason::TOKEN_SHARED.to_owned());
        }
    }
    resolved
}
