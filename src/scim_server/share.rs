//! Rate limits and fair shares: how often one client may send requests, and how many requests, slots and bytes of
//! bodies it may hold at a time.
//!
//! ```text
//! token accepted ─► rate ─► requests of the token, of the provider ─► body read, at a minimum rate ─► slot ─► handler
//! ```
//!
//! A request holds no slot while its body arrives, so that slow bodies delay nobody. Slots and memory are granted in the order of
//! arrival, first among the requests of one provider and then among all.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::token::Caller;
use crate::model::ProviderName;
use crate::scim::{Limit, ScimError, json};

/// Default rate of one token: far above what identity providers do, and below what one database can take from all of them.
pub(crate) const DEFAULT_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// Lowest rate of one token: what Microsoft Entra ID is known to need. It may not retry what is refused.
pub(crate) const LEAST_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(25).unwrap();

/// Bodies up to this size count against no memory limit.
pub(super) const SMALL_BODY: usize = 64 * 1024;

/// Most token names of a provider with a rate limiter; names change with each rotation.
const MAX_TOKENS: usize = 64;

/// Limits of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Requests per second and token, with bursts of as many; a provider may have a rate of its own
    /// (`TokenTable::set_rates`). None: no limit.
    pub(crate) requests_per_second: Option<NonZeroU32>,
    /// Requests of one token at a time, bodies that are still arriving included; further ones are answered with 429.
    pub(crate) requests_per_token: usize,
    /// The same of one provider, all its tokens together.
    pub(crate) requests_per_provider: usize,
    /// Requests with a running handler; further ones wait.
    pub(crate) slots: usize,
    /// The same of one provider.
    pub(crate) slots_per_provider: usize,
    /// Memory for bodies above 64 KiB, in bytes; further ones wait.
    pub(crate) body_memory: usize,
    /// The same of one provider.
    pub(crate) body_memory_per_provider: usize,
    /// Grace period at the beginning of a body, after which it has to keep up with `body_rate`.
    pub(crate) body_grace: Duration,
    /// Minimum average rate of a body, in bytes per second.
    pub(crate) body_rate: u32,
    /// Timeout of a whole body.
    pub(crate) body_timeout: Duration,
    /// Timeout of waiting for a slot or for memory.
    pub(crate) wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: Some(DEFAULT_REQUESTS_PER_SECOND),
            requests_per_token: 128,
            requests_per_provider: 256,
            slots: 256,
            slots_per_provider: 96,
            body_memory: 8 * json::MAX_BODY,
            body_memory_per_provider: 2 * json::MAX_BODY,
            body_grace: Duration::from_secs(10),
            body_rate: 16 * 1024,
            body_timeout: Duration::from_mins(5),
            wait: Duration::from_secs(30),
        }
    }
}

/// Bytes as permits of one KiB each.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

fn semaphore(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes.div_ceil(1024).min(Semaphore::MAX_PERMITS)))
}

/// Semaphores of the whole endpoint, and the share of each provider.
pub(super) struct Shares {
    limits: Limits,
    slots: Arc<Semaphore>,
    body_memory: Arc<Semaphore>,
    providers: Mutex<HashMap<ProviderName, Arc<Share>>>,
}

/// Usage of one provider.
struct Share {
    slots: Arc<Semaphore>,
    body_memory: Arc<Semaphore>,
    usage: Mutex<Usage>,
}

#[derive(Default)]
struct Usage {
    requests: usize,
    tokens: HashMap<String, TokenUsage>,
}

#[derive(Default)]
struct TokenUsage {
    requests: usize,
    limiter: Option<(NonZeroU32, DefaultDirectRateLimiter)>,
}

/// An admitted request, counted until this is dropped.
pub(super) struct Admitted {
    shares: Arc<Shares>,
    share: Arc<Share>,
    token: String,
}

/// Permit of a request to run its handler.
pub(super) struct Slot {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

/// Memory for a large body.
pub(super) struct BodyMemory {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.slots)),
            body_memory: semaphore(limits.body_memory),
            providers: Mutex::default(),
        })
    }

    fn share(&self, provider: &ProviderName) -> Arc<Share> {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = providers.get(provider) {
            return share.clone();
        }
        let share = Arc::new(Share {
            slots: Arc::new(Semaphore::new(self.limits.slots_per_provider)),
            body_memory: semaphore(self.limits.body_memory_per_provider),
            usage: Mutex::default(),
        });
        providers.insert(provider.clone(), share.clone());
        share
    }

    /// Admits a request, or refuses it with the time after which to retry. `rate` is the provider's own.
    pub(super) fn admit(self: &Arc<Self>, caller: &Caller, rate: Option<NonZeroU32>) -> Result<Admitted, ScimError> {
        let share = self.share(&caller.provider);
        {
            let mut usage = lock(&share.usage);
            if usage.tokens.len() >= MAX_TOKENS && !usage.tokens.contains_key(&caller.token) {
                usage.tokens.retain(|_, token| token.requests > 0);
            }
            let all = usage.requests;
            let token = usage.tokens.entry(caller.token.clone()).or_default();
            let limit = if rate.is_some() { Limit::OwnRate } else { Limit::DefaultRate };
            token.ask(rate.or(self.limits.requests_per_second), limit)?;
            if token.requests >= self.limits.requests_per_token {
                return Err(ScimError::TooManyRequests { limit: Limit::TokenRequests, retry_after: 1 });
            }
            if all >= self.limits.requests_per_provider {
                return Err(ScimError::TooManyRequests { limit: Limit::ProviderRequests, retry_after: 1 });
            }
            token.requests += 1;
            usage.requests += 1;
        }
        Ok(Admitted { shares: self.clone(), share, token: caller.token.clone() })
    }
}

impl TokenUsage {
    fn ask(&mut self, rate: Option<NonZeroU32>, limit: Limit) -> Result<(), ScimError> {
        let Some(rate) = rate else {
            self.limiter = None;
            return Ok(());
        };
        let limiter = match &mut self.limiter {
            Some((for_rate, limiter)) if *for_rate == rate => limiter,
            other => &mut other.insert((rate, RateLimiter::direct(Quota::per_second(rate)))).1,
        };
        limiter.check().map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            ScimError::TooManyRequests { limit, retry_after: wait.as_secs().saturating_add(1) }
        })
    }
}

impl Admitted {
    /// Waits for a slot.
    pub(super) async fn slot(&self) -> Result<Slot, ScimError> {
        let (own, shared) = self.both(&self.share.slots, &self.shares.slots, 1).await?;
        Ok(Slot { _own: own, _shared: shared })
    }

    /// Waits for memory.
    pub(super) async fn body_memory(&self, bytes: usize) -> Result<BodyMemory, ScimError> {
        let (own, shared) = self.both(&self.share.body_memory, &self.shares.body_memory, kib(bytes)).await?;
        Ok(BodyMemory { _own: own, _shared: shared })
    }

    /// Permits of the provider before shared ones: a provider that waits for its own holds nothing that others wait for.
    async fn both(
        &self,
        own: &Arc<Semaphore>,
        shared: &Arc<Semaphore>,
        permits: u32,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), ScimError> {
        let wait = self.shares.limits.wait;
        let over = |limit| ScimError::TooManyRequests { limit, retry_after: 5 };
        let own = tokio::time::timeout(wait, own.clone().acquire_many_owned(permits))
            .await
            .map_err(|_| over(Limit::ProviderRequests))?
            .map_err(|_| over(Limit::ProviderRequests))?;
        let shared = tokio::time::timeout(wait, shared.clone().acquire_many_owned(permits))
            .await
            .map_err(|_| over(Limit::ServerRequests))?
            .map_err(|_| over(Limit::ServerRequests))?;
        Ok((own, shared))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut usage = lock(&self.share.usage);
        usage.requests = usage.requests.saturating_sub(1);
        if let Some(token) = usage.tokens.get_mut(&self.token) {
            token.requests = token.requests.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(provider: &str, token: &str) -> Caller {
        Caller { provider: ProviderName::new(provider).unwrap(), token: token.to_owned() }
    }

    fn shares(limits: Limits) -> Arc<Shares> {
        Shares::new(limits)
    }

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn a_token_and_a_provider_at_their_limits_are_refused_and_others_are_not() {
        let limits = Limits { requests_per_token: 2, requests_per_provider: 3, ..Limits::default() };
        let shares = shares(limits);
        let first = shares.admit(&caller("okta", "a"), None).unwrap();
        let _second = shares.admit(&caller("okta", "a"), None).unwrap();
        assert!(shares.admit(&caller("okta", "a"), None).is_err(), "the token has two");
        let _third = shares.admit(&caller("okta", "b"), None).unwrap();
        assert!(shares.admit(&caller("okta", "b"), None).is_err(), "the provider has three");
        assert!(shares.admit(&caller("entra", "a"), None).is_ok());
        drop(first);
        assert!(shares.admit(&caller("okta", "a"), None).is_ok(), "one has ended");
    }

    #[tokio::test]
    async fn a_refusal_says_whose_limit_it_was() {
        let limits = Limits {
            requests_per_token: 2,
            requests_per_provider: 3,
            slots: 1,
            slots_per_provider: 1,
            wait: SOON,
            ..Limits::default()
        };
        let limit = |refusal: ScimError| match refusal {
            ScimError::TooManyRequests { limit, .. } => (limit, refusal.status()),
            other => panic!("{other}"),
        };
        let shares = shares(limits);
        let admit = |token: &str, rate| shares.admit(&caller("okta", token), rate);
        let (first, _second) = (admit("a", None).unwrap(), admit("a", None).unwrap());
        assert_eq!(limit(admit("a", None).err().unwrap()), (Limit::TokenRequests, 429));
        let _third = admit("b", None).unwrap();
        assert_eq!(limit(admit("b", None).err().unwrap()), (Limit::ProviderRequests, 429));
        let _slot = first.slot().await.unwrap();
        assert_eq!(limit(first.slot().await.err().unwrap()), (Limit::ProviderRequests, 429));
        let entra = shares.admit(&caller("entra", "a"), None).unwrap();
        assert_eq!(limit(entra.slot().await.err().unwrap()), (Limit::ServerRequests, 503));

        let limited = Shares::new(Limits { requests_per_second: NonZeroU32::new(1), ..Limits::default() });
        let rates = [(NonZeroU32::new(1), Limit::OwnRate), (None, Limit::DefaultRate)];
        for ((rate, whose), token) in rates.into_iter().zip(["own", "default"]) {
            let refusal = (0..100).find_map(|_| limited.admit(&caller("okta", token), rate).err()).unwrap();
            assert_eq!(limit(refusal.clone()), (whose, 429));
            let pointer = if whose == Limit::OwnRate { "spec.scim.requestsPerSecond" } else { "" };
            assert_eq!(refusal.attribute().as_deref(), Some(pointer));
        }
    }

    #[test]
    fn a_rate_is_counted_by_token_and_changes_at_once() {
        let shares = shares(Limits::default());
        let rate = NonZeroU32::new(3);
        let asked = |token: &str, rate| (0..10).filter(|_| shares.admit(&caller("okta", token), rate).is_ok()).count();
        assert!((3..=4).contains(&asked("a", rate)));
        assert!((3..=4).contains(&asked("b", rate)));
        assert_eq!(asked("a", NonZeroU32::new(500)), 10, "another rate");
        assert_eq!(asked("a", None), 10, "the default");
    }

    #[tokio::test]
    async fn one_provider_cannot_take_the_slots_of_another() {
        let limits = Limits { slots: 4, slots_per_provider: 2, wait: SOON, ..Limits::default() };
        let shares = shares(limits);
        let okta = shares.admit(&caller("okta", "a"), None).unwrap();
        let _held = (okta.slot().await.unwrap(), okta.slot().await.unwrap());
        assert!(matches!(okta.slot().await, Err(ScimError::TooManyRequests { .. })));
        let entra = shares.admit(&caller("entra", "a"), None).unwrap();
        assert!(entra.slot().await.is_ok());
    }

    #[tokio::test]
    async fn large_bodies_of_one_provider_leave_memory_for_another() {
        let limits = Limits { wait: SOON, ..Limits::default() };
        let shares = shares(limits);
        let okta = shares.admit(&caller("okta", "a"), None).unwrap();
        let mut held = Vec::new();
        while let Ok(memory) = okta.body_memory(json::MAX_BODY).await {
            held.push(memory);
            assert!(held.len() < 100, "bounded");
        }
        assert_eq!(held.len(), 2);
        let entra = shares.admit(&caller("entra", "a"), None).unwrap();
        assert!(entra.body_memory(json::MAX_BODY).await.is_ok());
    }
}
