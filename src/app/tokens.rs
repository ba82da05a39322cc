//! Accepted bearer tokens of each provider, derived from `IdentityProvider`s and Secrets. Only hashes are kept in
//! memory and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::api::manifest::SecretData;
use crate::api::{DialectChoice, IdentityProviderSpec, ProviderState, SecretKey, Strictness};
use crate::model::{ProviderName, Reason};
use crate::scim::Dialect;
use crate::scim_server::{
    Accepted, AcceptedClient, AcceptedToken, Captures, ClientKeys, LEAST_REQUESTS_PER_SECOND, OidcPolicy, TokenTable,
    client_credential,
};
use crate::sync::Engine;

/// The usable keys of a Secret, as hashes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretHashes {
    token: Result<[u8; 32], String>,
    token_sha256: Result<[u8; 32], String>,
    /// A Secret that was stored before there were clients has none until it is read again.
    #[serde(default = "no_client")]
    client: Result<ClientKeys, String>,
}

fn no_client() -> Result<ClientKeys, String> {
    Err(Reason::TokenKeyNotFound.word().to_owned())
}

impl SecretHashes {
    /// Hashes the tokens of a Secret.
    #[must_use]
    pub(crate) fn of(secret: &SecretData) -> Self {
        let hash = |key| secret.token_sha256(key).map_err(|error| error.reason().to_owned());
        let client = match secret.client() {
            Ok((id, secret)) => ClientKeys::of(id, secret).ok_or_else(|| Reason::TokenInvalid.word().to_owned()),
            Err(error) => Err(error.reason().to_owned()),
        };
        Self { token: hash(SecretKey::Token), token_sha256: hash(SecretKey::TokenSha256), client }
    }

    fn get(&self, key: SecretKey) -> &Result<[u8; 32], String> {
        match key {
            SecretKey::Token => &self.token,
            SecretKey::TokenSha256 => &self.token_sha256,
        }
    }
}

/// The credentials of all providers: those that are accepted, and the problems of the others (provider → credential → reason).
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Accepted credentials.
    pub(crate) accepted: BTreeMap<ProviderName, Accepted>,
    /// Providers with OAuth 2.0 clients, accepted or not.
    pub(crate) clients: BTreeSet<ProviderName>,
    /// Credentials that are not accepted, with the reason.
    pub(crate) problems: BTreeMap<ProviderName, BTreeMap<String, Reason>>,
}

/// Providers and Secrets, updated one by one, and the tokens that are accepted because of them.
pub(super) struct Credentials {
    engine: Engine,
    table: TokenTable,
    resolved: Arc<Mutex<Resolved>>,
    captures: Captures,
    providers: BTreeMap<ProviderName, IdentityProviderSpec>,
    /// Providers that do not own the people stored under their name.
    held: BTreeSet<ProviderName>,
    /// Secrets by name; all are in the operator's namespace. The value of an unreadable Secret is the reason.
    secrets: BTreeMap<String, Result<SecretHashes, Reason>>,
}

impl Credentials {
    /// Creates an empty value, with which no token is accepted.
    pub(super) fn new(engine: Engine, table: TokenTable, resolved: Arc<Mutex<Resolved>>, captures: Captures) -> Self {
        let (providers, held, secrets) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { engine, table, resolved, captures, providers, held, secrets }
    }

    /// Adds or replaces a provider. Like all changes here, it takes effect with [`Credentials::publish`].
    pub(super) fn provider(&mut self, name: ProviderName, spec: IdentityProviderSpec) {
        self.providers.insert(name, spec);
    }

    /// Sets whether the people stored under this name belong to another provider than the one that has the name.
    pub(super) fn hold(&mut self, name: &ProviderName, held: bool) {
        if held {
            self.held.insert(name.clone());
        } else {
            self.held.remove(name);
        }
    }

    /// The providers that do not own the people stored under their name.
    pub(super) fn held(&self) -> &BTreeSet<ProviderName> {
        &self.held
    }

    /// Removes a provider.
    pub(super) fn remove_provider(&mut self, name: &ProviderName) {
        self.providers.remove(name);
        self.held.remove(name);
    }

    /// Removes all other providers.
    pub(super) fn only_providers(&mut self, names: &BTreeSet<ProviderName>) {
        self.providers.retain(|name, _| names.contains(name));
        self.held.retain(|name| names.contains(name));
    }

    /// Adds or replaces a Secret, or the reason for which it cannot be read.
    pub(super) fn secret(&mut self, name: String, secret: Result<SecretHashes, Reason>) {
        self.secrets.insert(name, secret);
    }

    /// Removes a Secret.
    pub(super) fn remove_secret(&mut self, name: &str) {
        self.secrets.remove(name);
    }

    /// The names of the Secrets that the providers refer to.
    pub(super) fn named_secrets(&self) -> BTreeSet<String> {
        let scim = || self.providers.values().map(|spec| &spec.scim);
        let tokens = scim().flat_map(|scim| &scim.tokens).map(|token| &token.secret_ref.name);
        let clients = scim().flat_map(|scim| &scim.oauth_clients).map(|client| &client.secret_ref.name);
        tokens.chain(clients).cloned().collect()
    }

    /// Puts the changes so far into force.
    pub(super) fn publish(&self) {
        let resolved = resolve(&self.providers, &self.secrets);
        let suspended = self.providers.iter().filter(|(_, spec)| spec.state == ProviderState::Suspended);
        self.table.suspend(suspended.map(|(name, _)| name.clone()).collect());
        // Before new tokens take effect, so that no request reads the people of another provider.
        self.table.hold(self.held.clone());
        let rates = self.providers.iter().filter_map(|(name, spec)| {
            let rate = u32::try_from(spec.scim.requests_per_second?).ok().and_then(NonZeroU32::new)?;
            Some((name.clone(), rate.max(LEAST_REQUESTS_PER_SECOND)))
        });
        self.table.set_rates(rates.collect());
        let strict = self.providers.iter().filter(|(_, spec)| spec.scim.strictness == Strictness::Strict);
        self.table.set_strict(strict.map(|(name, _)| name.clone()).collect());
        let dialects = self.providers.iter().filter_map(|(name, spec)| {
            let dialect = match spec.scim.dialect {
                DialectChoice::Auto => return None,
                DialectChoice::Okta => Dialect::Okta,
                DialectChoice::Entra => Dialect::Entra,
                DialectChoice::Generic => Dialect::Generic,
            };
            Some((name.clone(), dialect))
        });
        let ends =
            self.providers.iter().filter_map(|(name, spec)| Some((name.clone(), spec.scim.capture_until.as_ref()?.0)));
        self.captures.set(&ends.collect());
        self.table.set_dialects(dialects.collect());
        for (provider, tokens) in self.table.replace(resolved.accepted.clone()) {
            tracing::warn!(
                %provider, tokens = tokens.len(),
                "{provider} shares a token with another IdentityProvider; it is refused for both"
            );
        }
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = resolved;
        self.engine.providers_changed();
    }
}

/// Resolves the tokens of all providers against the Secrets by name.
#[must_use]
pub(crate) fn resolve(
    providers: &BTreeMap<ProviderName, IdentityProviderSpec>,
    secrets: &BTreeMap<String, Result<SecretHashes, Reason>>,
) -> Resolved {
    let mut resolved = Resolved::default();
    for (provider, spec) in providers {
        let accepted = resolved.accepted.entry(provider.clone()).or_default();
        let mut problems = BTreeMap::new();
        let read = |name: &str| match secrets.get(name) {
            None => Err(Reason::TokenSecretNotFound),
            Some(Err(why)) => Err(*why),
            Some(Ok(secret)) => Ok(secret),
        };
        for token in &spec.scim.tokens {
            let secret = read(&token.secret_ref.name);
            match secret.and_then(|secret| secret.get(token.secret_ref.key).clone().map_err(|why| word(&why))) {
                Ok(sha256) => accepted.tokens.push(AcceptedToken {
                    name: token.name.clone(),
                    sha256,
                    not_after: token.not_after.as_ref().map(|time| time.0),
                }),
                Err(why) => drop(problems.insert(token.name.clone(), why)),
            }
        }
        for client in &spec.scim.oauth_clients {
            let secret = read(&client.secret_ref.name);
            match secret.and_then(|secret| secret.client.clone().map_err(|why| word(&why))) {
                Ok(keys) => accepted.clients.push(AcceptedClient {
                    name: client.name.clone(),
                    keys,
                    not_after: client.not_after.as_ref().map(|time| time.0),
                }),
                Err(why) => drop(problems.insert(client_credential(&client.name), why)),
            }
        }
        accepted.oidc = spec.scim.oidc.as_ref().map(|oidc| {
            let subjects = oidc.subjects.iter().cloned().collect();
            Arc::new(OidcPolicy { issuer: oidc.issuer.clone(), audience: oidc.audience.clone(), subjects })
        });
        if !spec.scim.oauth_clients.is_empty() {
            resolved.clients.insert(provider.clone());
        }
        if !problems.is_empty() {
            resolved.problems.insert(provider.clone(), problems);
        }
    }
    resolved
}

/// The static word equal to a stored reason.
fn word(stored: &str) -> Reason {
    let words = [Reason::TokenKeyNotFound, Reason::TokenWeak];
    words.into_iter().find(|word| word.word() == stored).unwrap_or(Reason::TokenInvalid)
}
