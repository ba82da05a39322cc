//! OpenID Connect for the SCIM client: tokens that an issuer of the identity provider signs, and the issuer's public keys.
//!
//! Keys are read by discovery when a token needs them, at most once a minute for each issuer, and again after an hour. While the issuer
//! cannot be reached, the keys that were last read are used for at most a day.

mod fetch;
mod jwt;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use reqwest::Certificate;

use self::fetch::Fetcher;
pub(super) use self::jwt::is_signed_token;
use self::jwt::{Algorithm, Unverified};
use self::keys::{Key, choose};
use crate::scim::JwtProblem;

/// Age from which on keys are read again.
const REFRESH: SignedDuration = SignedDuration::from_hours(1);

/// Age from which on keys are not used any more.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Least time between two reads of the keys of one issuer.
const INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// Most issuers whose keys are kept.
const MAX_ISSUERS: usize = 256;

/// The tokens of an issuer that are accepted for one identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OidcPolicy {
    /// The issuer, byte for byte.
    pub(crate) issuer: String,
    /// The audience.
    pub(crate) audience: String,
    /// The subjects.
    pub(crate) subjects: BTreeSet<String>,
}

/// Issuers with their keys. Clones share them.
#[derive(Clone)]
pub(crate) struct Issuers(Arc<Shared>);

struct Shared {
    fetcher: Fetcher,
    issuers: Mutex<HashMap<String, Arc<Issuer>>>,
}

struct Issuer {
    name: String,
    fetcher: Fetcher,
    cached: RwLock<Cached>,
    /// Time of the last read, whether it succeeded or not. Held while keys are read, so that one read serves all that wait.
    attempted: tokio::sync::Mutex<Option<Timestamp>>,
}

#[derive(Clone, Default)]
struct Cached {
    keys: Arc<Vec<Key>>,
    read_at: Option<Timestamp>,
    /// Whether the last read failed.
    failed: bool,
}

impl Cached {
    /// The time since the keys were read. After the clock was set back it is the time until then: such keys are read again, too,
    /// and are not used for longer than others.
    fn age(&self, now: Timestamp) -> SignedDuration {
        self.read_at.map_or(SignedDuration::MAX, |at| now.duration_since(at).abs())
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        self.age(now) < MAX_AGE
    }
}

impl Issuers {
    /// No issuers yet. `roots` are trusted beside the certificates of the system.
    ///
    /// # Errors
    /// [`reqwest::Error`], when TLS cannot be set up.
    pub(crate) fn new(allow_private: bool, roots: Vec<Certificate>) -> Result<Self, reqwest::Error> {
        let fetcher = Fetcher::new(allow_private, roots)?;
        Ok(Self(Arc::new(Shared { fetcher, issuers: Mutex::default() })))
    }

    /// Whether the keys of an issuer were asked for and cannot be had.
    #[must_use]
    pub(crate) fn is_unavailable(&self, issuer: &str, now: Timestamp) -> bool {
        let issuers = self.0.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        issuers.get(issuer).is_some_and(|issuer| {
            let cached = issuer.cached();
            cached.failed && !cached.is_usable(now)
        })
    }

    /// Verifies a token. Returns its subject, which is one of the policy's.
    pub(super) async fn verify(&self, policy: &OidcPolicy, token: &[u8], now: Timestamp) -> Result<String, JwtProblem> {
        // Before any key is read, so that strangers do not cause reads.
        let token = Unverified::parse(token, policy, now)?;
        let key = self.issuer(&policy.issuer).key(token.kid.as_deref(), token.algorithm, now).await?;
        token.verify(&key)
    }

    fn issuer(&self, name: &str) -> Arc<Issuer> {
        let mut issuers = self.0.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = issuers.get(name) {
            return known.clone();
        }
        if issuers.len() >= MAX_ISSUERS {
            issuers.clear();
        }
        let issuer = Arc::new(Issuer {
            name: name.to_owned(),
            fetcher: self.0.fetcher.clone(),
            cached: RwLock::default(),
            attempted: tokio::sync::Mutex::default(),
        });
        issuers.insert(name.to_owned(), issuer.clone());
        issuer
    }
}

impl Issuer {
    fn cached(&self) -> Cached {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key of a token.
    async fn key(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm, now: Timestamp) -> Result<Key, JwtProblem> {
        let cached = self.cached();
        let known = choose(&cached.keys, kid, algorithm).filter(|_| cached.is_usable(now)).cloned();
        if let Some(known) = known {
            if cached.age(now) >= REFRESH && self.is_due(now) {
                let issuer = self.clone();
                tokio::spawn(async move { issuer.refresh(now).await });
            }
            return Ok(known);
        }
        self.refresh(now).await;
        let cached = self.cached();
        if !cached.is_usable(now) {
            return Err(JwtProblem::IssuerUnavailable);
        }
        choose(&cached.keys, kid, algorithm).cloned().ok_or(JwtProblem::Key)
    }

    /// Whether nobody reads the keys now and they may be read.
    fn is_due(&self, now: Timestamp) -> bool {
        self.attempted.try_lock().is_ok_and(|attempted| may_read(*attempted, now))
    }

    /// Reads the keys, unless they were read within the last minute.
    async fn refresh(&self, now: Timestamp) {
        let mut attempted = self.attempted.lock().await;
        if !may_read(*attempted, now) {
            return;
        }
        *attempted = Some(now);
        let read = self.fetcher.keys(&self.name).await;
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(keys) => *cached = Cached { keys: Arc::new(keys), read_at: Some(now), failed: false },
            Err(error) => {
                cached.failed = true;
                let usable = cached.is_usable(now);
                tracing::warn!(
                    issuer = self.name,
                    usable,
                    "cannot read the keys of an OpenID Connect issuer: {error}; {}",
                    if usable {
                        "the keys that were last read are used for at most a day"
                    } else {
                        "its tokens are refused"
                    }
                );
            }
        }
    }
}

/// Whether keys may be read again. A time in the future is of a clock that was set back.
fn may_read(attempted: Option<Timestamp>, now: Timestamp) -> bool {
    attempted.is_none_or(|at| now < at || now.duration_since(at) >= INTERVAL)
}
