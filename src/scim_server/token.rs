//! Accepted credentials of identity providers: bearer tokens (RFC 6750), and OAuth 2.0 clients.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, RwLock};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::oauth::{AcceptedClient, Presented, Rejected};
use super::oidc::OidcPolicy;
use super::token_endpoint::Pair;
use crate::model::ProviderName;
use crate::scim::{Dialect, FindingCode, JwtProblem};

/// A token that is accepted for one identity provider, as its hash.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AcceptedToken {
    /// The name in `spec.scim.tokens`.
    pub(crate) name: String,
    /// SHA-256 of the token.
    pub(crate) sha256: [u8; 32],
    /// End of its validity.
    pub(crate) not_after: Option<Timestamp>,
}

impl fmt::Debug for AcceptedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedToken")
            .field("name", &self.name)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The credentials that are accepted for one identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Accepted {
    /// Bearer tokens.
    pub(crate) tokens: Vec<AcceptedToken>,
    /// OAuth 2.0 clients.
    pub(crate) clients: Vec<AcceptedClient>,
    /// Tokens of an OpenID Connect issuer.
    pub(crate) oidc: Option<Arc<OidcPolicy>>,
}

/// A credential as the status lists it.
pub(crate) struct Credential {
    /// Its name there and in the audit log.
    pub(crate) name: String,
    /// End of its validity.
    pub(crate) not_after: Option<Timestamp>,
    /// The JSON pointer to it in the `IdentityProvider`.
    pub(crate) pointer: String,
    /// The OpenID Connect issuer that it needs.
    pub(crate) issuer: Option<String>,
}

/// The name of a subject of the OpenID Connect issuer as a credential.
#[must_use]
pub(crate) fn subject_credential(subject: &str) -> String {
    format!("oidc:{subject}")
}

/// The name of an OAuth 2.0 client as a credential. Names of tokens have no colon.
#[must_use]
pub(crate) fn client_credential(name: &str) -> String {
    format!("oauth:{name}")
}

impl Accepted {
    /// The credentials, as the status lists them.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = Credential> {
        let tokens = self.tokens.iter().map(|token| Credential {
            name: token.name.clone(),
            not_after: token.not_after,
            pointer: format!("/spec/scim/tokens/{}", token.name),
            issuer: None,
        });
        let clients = self.clients.iter().map(|client| Credential {
            name: client_credential(&client.name),
            not_after: client.not_after,
            pointer: format!("/spec/scim/oauthClients/{}", client.name),
            issuer: None,
        });
        let subjects = self.oidc.iter().flat_map(|policy| {
            policy.subjects.iter().map(|subject| Credential {
                name: subject_credential(subject),
                not_after: None,
                pointer: "/spec/scim/oidc".to_owned(),
                issuer: Some(policy.issuer.clone()),
            })
        });
        tokens.chain(clients).chain(subjects)
    }

    /// Removes the credentials with one of these secrets. Returns their names.
    fn remove(&mut self, is_shared: impl Fn(&[u8; 32]) -> bool) -> Vec<String> {
        let tokens = self.tokens.extract_if(.., |token| is_shared(&token.sha256)).map(|token| token.name);
        let mut removed: Vec<String> = tokens.collect();
        let clients = self.clients.extract_if(.., |client| is_shared(&client.keys.secret_sha256()));
        removed.extend(clients.map(|client| client_credential(&client.name)));
        removed
    }
}

impl From<Vec<AcceptedToken>> for Accepted {
    fn from(tokens: Vec<AcceptedToken>) -> Self {
        Self { tokens, ..Self::default() }
    }
}

/// All accepted credentials. Clones share one table, which is replaced as a whole when the custom resources change.
#[derive(Clone, Default)]
pub(crate) struct TokenTable(Arc<RwLock<Entries>>);

#[derive(Default)]
struct Entries {
    accepted: HashMap<String, (ProviderName, Accepted)>,
    shared: BTreeMap<ProviderName, Vec<String>>,
    suspended: BTreeSet<ProviderName>,
    held: BTreeSet<ProviderName>,
    rates: BTreeMap<ProviderName, NonZeroU32>,
    strict: BTreeSet<ProviderName>,
    dialects: BTreeMap<ProviderName, Dialect>,
}

/// Provider and credential that a request was authenticated as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) provider: ProviderName,
    /// The name of the token, or of another credential ([`client_credential`]).
    pub(super) token: String,
}

/// Why a request has no accepted token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// There is no `Authorization` header.
    NoHeader,
    /// The header has another scheme than `Bearer`, or a token alone.
    NotBearer,
    /// The token's `notAfter` has passed.
    Expired,
    /// The provider has no such token.
    Unknown,
    /// The access token has ended.
    AccessTokenEnded,
    /// The provider has no such OAuth 2.0 client.
    Client,
    /// The token of the OpenID Connect issuer is not accepted.
    Jwt(JwtProblem),
}

impl Denied {
    /// What the provider's status says.
    pub(super) fn finding(self) -> FindingCode {
        match self {
            Self::NoHeader => FindingCode::AuthorizationMissing,
            Self::NotBearer => FindingCode::BearerMissing,
            Self::Expired => FindingCode::TokenExpired,
            Self::Unknown => FindingCode::TokenNotAccepted,
            Self::AccessTokenEnded => FindingCode::AccessTokenEnded,
            Self::Client => FindingCode::ClientNotAccepted,
            Self::Jwt(problem) => FindingCode::JwtNotAccepted(problem),
        }
    }
}

impl TokenTable {
    /// A table without tokens: every request is unauthorized.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Replaces all credentials. A token or client secret that two providers list is accepted for neither, since it does not
    /// identify one of them. Returns the names of those, by provider.
    pub(crate) fn replace<A: Into<Accepted>>(
        &self,
        credentials: BTreeMap<ProviderName, A>,
    ) -> BTreeMap<ProviderName, Vec<String>> {
        let credentials: BTreeMap<ProviderName, Accepted> =
            credentials.into_iter().map(|(provider, accepted)| (provider, accepted.into())).collect();
        let mut owners: HashMap<[u8; 32], Option<ProviderName>> = HashMap::new();
        for (provider, accepted) in &credentials {
            let clients = accepted.clients.iter().map(|client| client.keys.secret_sha256());
            for secret in accepted.tokens.iter().map(|token| token.sha256).chain(clients) {
                owners
                    .entry(secret)
                    .and_modify(|owner| {
                        if owner.as_ref() != Some(provider) {
                            *owner = None;
                        }
                    })
                    .or_insert_with(|| Some(provider.clone()));
            }
        }
        let mut shared: BTreeMap<ProviderName, Vec<String>> = BTreeMap::new();
        let mut kept = HashMap::new();
        for (provider, mut accepted) in credentials {
            let refused = accepted.remove(|secret| owners.get(secret).is_some_and(Option::is_none));
            if !refused.is_empty() {
                shared.insert(provider.clone(), refused);
            }
            kept.insert(provider.to_string(), (provider, accepted));
        }
        let mut entries = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.accepted = kept;
        entries.shared.clone_from(&shared);
        shared
    }

    /// Replaces the set of providers whose requests are answered with 503 (`spec.state: Suspended`).
    pub(crate) fn suspend(&self, providers: BTreeSet<ProviderName>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).suspended = providers;
    }

    /// Replaces the set of providers whose name had another owner, to whom the stored people belong. Their requests are answered
    /// with 503.
    pub(crate) fn hold(&self, providers: BTreeSet<ProviderName>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).held = providers;
    }

    /// Whether the people stored under this name belong to another owner ([`TokenTable::hold`]).
    #[must_use]
    pub(crate) fn is_held(&self, provider: &ProviderName) -> bool {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).held.contains(provider)
    }

    pub(super) fn is_suspended(&self, provider: &ProviderName) -> bool {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).suspended.contains(provider)
    }

    /// Replaces the rates that providers have of their own (`spec.scim.requestsPerSecond`).
    pub(crate) fn set_rates(&self, rates: BTreeMap<ProviderName, NonZeroU32>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).rates = rates;
    }

    /// Replaces the set of providers whose deviations from the RFCs are refused (`spec.scim.strictness: Strict`).
    pub(crate) fn set_strict(&self, providers: BTreeSet<ProviderName>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).strict = providers;
    }

    pub(super) fn is_strict(&self, provider: &ProviderName) -> bool {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).strict.contains(provider)
    }

    /// Replaces the dialects that providers are configured for (`spec.scim.dialect`).
    pub(crate) fn set_dialects(&self, dialects: BTreeMap<ProviderName, Dialect>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).dialects = dialects;
    }

    pub(super) fn dialect(&self, provider: &ProviderName) -> Option<Dialect> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).dialects.get(provider).copied()
    }

    pub(super) fn rate(&self, provider: &ProviderName) -> Option<NonZeroU32> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).rates.get(provider).copied()
    }

    /// The provider of this name, if there is one.
    pub(super) fn known(&self, provider: &str) -> Option<ProviderName> {
        let entries = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.accepted.get(provider).map(|(name, _)| name.clone())
    }

    /// The names of tokens that are refused because two providers list them, by provider.
    #[must_use]
    pub(crate) fn shared(&self) -> BTreeMap<ProviderName, Vec<String>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).shared.clone()
    }

    /// Finds the token of an `Authorization` header among those of a provider. The work is the same whether the provider exists
    /// or not, and whichever token matches.
    ///
    /// # Errors
    /// [`Denied`], for the administrator only: the answer is the same for all.
    pub(super) fn authenticate(
        &self,
        provider: &str,
        authorization: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Caller, Denied> {
        let presented = authorization.and_then(bearer);
        let digest: [u8; 32] = Sha256::digest(presented.unwrap_or_default()).into();
        let entries = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = entries.accepted.get(provider);
        let nobody = [0_u8; 32];
        let (mut found, mut expired) = (None, false);
        if known.is_none_or(|(_, accepted)| accepted.tokens.is_empty()) {
            std::hint::black_box(bool::from(digest.ct_eq(&nobody)));
        }
        let tokens =
            known.into_iter().flat_map(|(name, accepted)| accepted.tokens.iter().map(move |token| (name, token)));
        for (name, token) in tokens {
            let equal = bool::from(digest.ct_eq(&token.sha256));
            let live = token.not_after.is_none_or(|end| now < end);
            expired |= equal && !live;
            if equal && live && found.is_none() {
                found = Some(Caller { provider: name.clone(), token: token.name.clone() });
            }
        }
        if found.is_none()
            && let Some(token) = presented.and_then(Presented::split)
        {
            let clients = known.map(|(_, accepted)| &*accepted.clients).unwrap_or_default();
            return match (token.verify(provider, clients, now), known) {
                (Ok(client), Some((name, _))) => {
                    Ok(Caller { provider: name.clone(), token: client_credential(&client.name) })
                }
                (Err(Rejected::Ended), _) => Err(Denied::AccessTokenEnded),
                (Ok(_) | Err(Rejected::Invalid), _) => Err(Denied::Unknown),
            };
        }
        match (found.filter(|_| presented.is_some_and(|token| !token.is_empty())), presented, authorization) {
            (Some(caller), ..) => Ok(caller),
            (None, None, None) => Err(Denied::NoHeader),
            (None, None, Some(_)) => Err(Denied::NotBearer),
            (None, Some(_), _) if expired => Err(Denied::Expired),
            (None, Some(_), _) => Err(Denied::Unknown),
        }
    }

    /// The provider that a live token belongs to, whatever the URL. Compares with every token, whichever matches.
    pub(super) fn owner(&self, authorization: Option<&[u8]>, now: Timestamp) -> Option<ProviderName> {
        let presented = authorization.and_then(bearer).filter(|token| !token.is_empty())?;
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let entries = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(token) = Presented::split(presented) {
            let (name, accepted) = entries.accepted.get(token.provider())?;
            return token.verify(token.provider(), &accepted.clients, now).is_ok().then(|| name.clone());
        }
        let mut owner = None;
        for (name, accepted) in entries.accepted.values() {
            for token in &accepted.tokens {
                let live = token.not_after.is_none_or(|end| now < end);
                if bool::from(digest.ct_eq(&token.sha256)) && live {
                    owner = Some(name.clone());
                }
            }
        }
        owner
    }
}

impl TokenTable {
    /// The provider of this name with its OpenID Connect issuer, if it has one.
    pub(super) fn oidc(&self, provider: &str) -> Option<(ProviderName, Arc<OidcPolicy>)> {
        let entries = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (name, accepted) = entries.accepted.get(provider)?;
        Some((name.clone(), accepted.oidc.clone()?))
    }

    /// The client of a provider that one of these readings of id and secret belongs to, with that reading. Compares with every
    /// client, whichever matches.
    ///
    /// # Errors
    /// [`Denied`], for the administrator only: the answer is the same for all.
    pub(super) fn client(
        &self,
        provider: &str,
        pairs: &[Pair],
        now: Timestamp,
    ) -> Result<(ProviderName, AcceptedClient, Pair), Denied> {
        let entries = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = entries.accepted.get(provider);
        let clients =
            known.into_iter().flat_map(|(name, accepted)| accepted.clients.iter().map(move |one| (name, one)));
        let (mut found, mut expired) = (None, false);
        for (name, client) in clients {
            for pair in pairs {
                let is_it = bool::from(client.keys.is(&pair.0, &pair.1));
                let live = client.not_after.is_none_or(|end| now < end);
                expired |= is_it && !live;
                if is_it && live && found.is_none() {
                    found = Some((name.clone(), client.clone(), pair.clone()));
                }
            }
        }
        found.ok_or(if expired { Denied::Expired } else { Denied::Client })
    }
}

/// The token of a `Bearer` header: the scheme in any case, space around the token trimmed.
pub(super) fn bearer(header: &[u8]) -> Option<&[u8]> {
    let header = header.trim_ascii();
    let (scheme, token) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || !token.first().is_some_and(u8::is_ascii_whitespace) {
        return None;
    }
    Some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ProviderName {
        ProviderName::new(text).unwrap()
    }

    fn token(name: &str, secret: &str, not_after: Option<&str>) -> AcceptedToken {
        AcceptedToken {
            name: name.into(),
            sha256: Sha256::digest(secret).into(),
            not_after: not_after.map(|at| at.parse().unwrap()),
        }
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_opens_the_endpoint_of_its_own_provider_only() {
        let table = TokenTable::new();
        table.replace(BTreeMap::from([
            (name("okta"), vec![token("a", "secret-one", None)]),
            (name("entra"), vec![token("a", "secret-two", None)]),
        ]));
        let caller = table.authenticate("okta", Some(b"Bearer secret-one"), now());
        assert_eq!(caller.unwrap().provider, name("okta"));
        assert_eq!(table.authenticate("entra", Some(b"Bearer secret-one"), now()), Err(Denied::Unknown));
        assert_eq!(table.authenticate("nobody", Some(b"Bearer secret-one"), now()), Err(Denied::Unknown));
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_space_is_trimmed() {
        let table = TokenTable::new();
        table.replace(BTreeMap::from([(name("okta"), vec![token("a", "secret-one", None)])]));
        for header in ["Bearer secret-one", "bearer secret-one", "BEARER   secret-one  ", "  Bearer secret-one"] {
            assert!(table.authenticate("okta", Some(header.as_bytes()), now()).is_ok(), "{header}");
        }
        for header in
            ["secret-one", "Bearersecret-one", "Basic secret-one", "Bearer", "Bearer ", "Bearer secret-on", ""]
        {
            assert!(table.authenticate("okta", Some(header.as_bytes()), now()).is_err(), "{header}");
        }
        assert!(table.authenticate("okta", None, now()).is_err());
    }

    #[test]
    fn a_token_ends_at_its_not_after() {
        let table = TokenTable::new();
        table.replace(BTreeMap::from([(
            name("okta"),
            vec![
                token("old", "secret-old", Some("2026-06-01T00:00:00Z")),
                token("new", "secret-new", Some("2026-06-01T00:00:01Z")),
            ],
        )]));
        assert!(table.authenticate("okta", Some(b"Bearer secret-old"), now()).is_err());
        assert_eq!(table.authenticate("okta", Some(b"Bearer secret-new"), now()).unwrap().token, "new");
    }

    #[test]
    fn a_token_of_two_providers_is_refused_for_both_and_named() {
        let table = TokenTable::new();
        let shared = table.replace(BTreeMap::from([
            (name("okta"), vec![token("a", "same", None), token("own", "other", None)]),
            (name("entra"), vec![token("b", "same", None)]),
        ]));
        assert_eq!(
            shared,
            BTreeMap::from([(name("okta"), vec!["a".to_owned()]), (name("entra"), vec!["b".to_owned()])])
        );
        assert_eq!(table.shared(), shared);
        assert!(table.authenticate("okta", Some(b"Bearer same"), now()).is_err());
        assert!(table.authenticate("entra", Some(b"Bearer same"), now()).is_err());
        assert!(table.authenticate("okta", Some(b"Bearer other"), now()).is_ok());
    }

    #[test]
    fn debug_output_of_a_token_has_no_hash() {
        let text = format!("{:?}", token("a", "secret", None));
        assert!(!text.contains("sha256") && text.contains("\"a\""), "{text}");
    }
}
