//! Google's per-minute quotas, off by default.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::ApiError;

/// The quota that a call uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Spend {
    Read,
    Write,
}

/// A token bucket for each project, region and kind of call.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    pub(crate) limits: Option<Limits>,
    buckets: HashMap<(u64, String, Spend), Bucket>,
}

/// Calls per minute; a bucket holds the tokens of one minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) reads: u32,
    pub(crate) writes: u32,
    /// Answer 403 instead of 429, as some APIs do.
    pub(crate) as_forbidden: bool,
    /// Seconds for a `Retry-After` header.
    pub(crate) retry_after: Option<u64>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: u64,
}

impl Quota {
    /// Sets or removes the limits and resets the buckets.
    pub(crate) fn set(&mut self, limits: Option<Limits>) {
        self.limits = limits;
        self.buckets.clear();
    }

    /// Uses one call at `now` (microseconds).
    pub(crate) fn spend(&mut self, project: u64, region: &str, spend: Spend, now: u64) -> Result<(), ApiError> {
        let Some(limits) = self.limits else { return Ok(()) };
        let per_minute = match spend {
            Spend::Read => limits.reads,
            Spend::Write => limits.writes,
        };
        let capacity = f64::from(per_minute);
        let bucket =
            self.buckets.entry((project, region.to_owned(), spend)).or_insert(Bucket { tokens: capacity, filled: now });
        let elapsed = std::time::Duration::from_micros(now.saturating_sub(bucket.filled)).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * capacity / 60.0).min(capacity);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let mut error = exceeded(project, region, spend, per_minute);
        error.retry_after = limits.retry_after;
        if limits.as_forbidden {
            error.code = 403;
            error.status = "PERMISSION_DENIED";
        }
        Err(error)
    }
}

/// The error with Cloud Run's text.
pub(crate) fn exceeded(project: u64, region: &str, spend: Spend, per_minute: u32) -> ApiError {
    let (metric, limit, word) = match spend {
        Spend::Read => ("run.googleapis.com/read_regional", "ReadPerMinutePerProjectRegion", "Read"),
        Spend::Write => ("run.googleapis.com/write_regional", "WritePerMinutePerProjectRegion", "Write"),
    };
    let message = format!(
        "Quota exceeded for quota metric '{word} requests' and limit '{word} requests per minute per region' of service 'run.googleapis.com' for consumer 'project_number:{project}'."
    );
    let details: Value = json!([
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "RATE_LIMIT_EXCEEDED",
            "domain": "googleapis.com",
            "metadata": {
                "service": "run.googleapis.com",
                "consumer": format!("projects/{project}"),
                "quota_metric": metric,
                "quota_limit": limit,
                "quota_limit_value": per_minute.to_string(),
                "quota_location": region,
            },
        },
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{
                "description": "Request a higher quota limit.",
                "url": "https://cloud.google.com/docs/quota#requesting_higher_quota",
            }],
        },
    ]);
    ApiError::new(429, "RESOURCE_EXHAUSTED", message).with_details(details)
}
