//! Injected faults.

use regex::Regex;
use serde::{Deserialize, Serialize};

/// A fault in the control API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FaultSpec {
    #[serde(default, rename = "match")]
    pub(crate) matching: Match,
    pub(crate) action: Action,
}

/// The calls that a fault applies to; an absent field matches everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Match {
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Substring of the decoded path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Regular expression to find in the decoded path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path_regex: Option<String>,
    /// Substring of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    /// Number of the first matching call that the fault applies to, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nth: Option<u64>,
    /// Number of calls that the fault applies to; without it all, or one if `nth` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
    /// Probability, from 0 to 1, with a seeded generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probability: Option<f64>,
}

/// The types of [`Action`].
pub(crate) const ACTIONS: [&str; 6] = ["error", "html", "malformed", "latency", "drop", "hang"];

/// The effect on a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum Action {
    /// An error in Google's envelope.
    Error {
        status: u16,
        /// Seconds for a `Retry-After` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        /// With 403 or 429: use the quota text.
        #[serde(default)]
        quota: bool,
        /// Replaces the usual text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Replaces the usual status word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(default)]
        when: When,
        #[serde(default)]
        latency_ms: u64,
    },
    /// A front end's HTML page.
    Html {
        status: u16,
        #[serde(default)]
        when: When,
        #[serde(default)]
        latency_ms: u64,
    },
    /// A 200 with truncated JSON.
    Malformed {
        #[serde(default)]
        when: When,
        #[serde(default)]
        latency_ms: u64,
    },
    /// The call is processed late, even if the client has disconnected meanwhile.
    Latency { latency_ms: u64 },
    /// The connection is closed without an answer.
    Drop {
        #[serde(default)]
        when: When,
        #[serde(default)]
        latency_ms: u64,
    },
    /// No answer for `latencyMs` (default ten minutes), then the connection is closed: a client's timeout.
    Hang {
        #[serde(default)]
        when: When,
        #[serde(default = "ten_minutes")]
        latency_ms: u64,
    },
}

fn ten_minutes() -> u64 {
    600_000
}

/// Whether the call takes effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum When {
    /// The call has no effect.
    #[default]
    Before,
    /// The call has taken effect; only its answer is lost.
    After,
}

impl Action {
    /// The name in the journal.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Error { when: When::Before, .. } => "error",
            Self::Error { when: When::After, .. } => "errorAfterCommit",
            Self::Html { when: When::Before, .. } => "html",
            Self::Html { when: When::After, .. } => "htmlAfterCommit",
            Self::Malformed { when: When::Before, .. } => "malformed",
            Self::Malformed { when: When::After, .. } => "malformedAfterCommit",
            Self::Latency { .. } => "latency",
            Self::Drop { when: When::Before, .. } => "drop",
            Self::Drop { when: When::After, .. } => "dropAfterCommit",
            Self::Hang { when: When::Before, .. } => "hang",
            Self::Hang { when: When::After, .. } => "hangAfterCommit",
        }
    }

    /// Delay in milliseconds before the call is processed.
    pub(crate) fn latency_ms(&self) -> u64 {
        match self {
            Self::Error { latency_ms, .. }
            | Self::Html { latency_ms, .. }
            | Self::Malformed { latency_ms, .. }
            | Self::Latency { latency_ms }
            | Self::Drop { latency_ms, .. } => *latency_ms,
            Self::Hang { .. } => 0,
        }
    }

    pub(crate) fn commits(&self) -> bool {
        match self {
            Self::Latency { .. } => true,
            Self::Error { when, .. }
            | Self::Html { when, .. }
            | Self::Malformed { when, .. }
            | Self::Drop { when, .. }
            | Self::Hang { when, .. } => *when == When::After,
        }
    }
}

#[derive(Debug)]
struct Fault {
    spec: FaultSpec,
    regex: Option<Regex>,
    matched: u64,
    fired: u64,
}

/// The active faults, in the order in which they were added; the first that matches applies.
#[derive(Debug)]
pub(crate) struct Faults {
    faults: Vec<Fault>,
    random: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self { faults: Vec::new(), random: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Faults {
    /// Adds faults; none if one of them is invalid.
    pub(crate) fn add(&mut self, specs: Vec<FaultSpec>) -> Result<(), String> {
        let mut added = Vec::with_capacity(specs.len());
        for spec in specs {
            let regex = match &spec.matching.path_regex {
                None => None,
                Some(pattern) => Some(Regex::new(pattern).map_err(|error| format!("match.pathRegex: {error}"))?),
            };
            if let Some(probability) = spec.matching.probability
                && !(0.0..=1.0).contains(&probability)
            {
                return Err(format!("match.probability: {probability} is not between 0 and 1"));
            }
            if let Action::Error { status, .. } | Action::Html { status, .. } = &spec.action
                && !(400..=599).contains(status)
            {
                return Err(format!("action.status: {status} is not an error status"));
            }
            added.push(Fault { spec, regex, matched: 0, fired: 0 });
        }
        self.faults.extend(added);
        Ok(())
    }

    /// Removes all faults and restarts the random sequence.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Seeds the random sequence.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// The action for a call, if a fault matches.
    pub(crate) fn hit(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Action> {
        for fault in &mut self.faults {
            let matching = &fault.spec.matching;
            let matches = matching.method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && matching.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
                && fault.regex.as_ref().is_none_or(|regex| regex.is_match(path))
                && matching.body.as_ref().is_none_or(|part| {
                    part.is_empty() || body.windows(part.len()).any(|window| window == part.as_bytes())
                });
            if !matches {
                continue;
            }
            fault.matched += 1;
            let count = matching.count.or(matching.nth.map(|_| 1)).unwrap_or(u64::MAX);
            if fault.matched < matching.nth.unwrap_or(1) || fault.fired >= count {
                continue;
            }
            if let Some(probability) = matching.probability {
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.random;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                if f64::from(u32::try_from(z >> 32).unwrap_or(0)) / 4_294_967_296.0 >= probability {
                    continue;
                }
            }
            fault.fired += 1;
            return Some(fault.spec.action.clone());
        }
        None
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let faults: Vec<_> = self
            .faults
            .iter()
            .map(|fault| {
                serde_json::json!({
                    "match": fault.spec.matching,
                    "action": fault.spec.action,
                    "matched": fault.matched,
                    "fired": fault.fired,
                })
            })
            .collect();
        serde_json::json!({ "faults": faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_actions_is_the_one_that_is_understood() {
        let unknown = serde_json::from_value::<Action>(serde_json::json!({ "type": "none" })).unwrap_err().to_string();
        let named: Vec<&str> = unknown.split('`').skip(1).step_by(2).skip(1).collect();
        assert_eq!(named, ACTIONS, "{unknown}");
    }

    fn faults(spec: serde_json::Value) -> Faults {
        let mut faults = Faults::default();
        faults.add(vec![serde_json::from_value(spec).unwrap()]).unwrap();
        faults
    }

    #[test]
    fn nth_without_count_hits_once() {
        let mut faults = faults(serde_json::json!({
            "match": { "method": "POST", "path": ":setIamPolicy", "nth": 2 },
            "action": { "type": "error", "status": 409 },
        }));
        let hits: Vec<bool> = (0..4).map(|_| faults.hit("POST", "/v2/x:setIamPolicy", b"").is_some()).collect();
        assert_eq!(hits, [false, true, false, false]);
        assert!(faults.hit("GET", "/v2/x:setIamPolicy", b"").is_none());
    }

    #[test]
    fn probability_is_repeatable_and_near_what_was_asked() {
        let run = || {
            let mut faults = faults(serde_json::json!({
                "match": { "probability": 0.25 }, "action": { "type": "drop" },
            }));
            (0..4000).filter(|_| faults.hit("GET", "/", b"").is_some()).count()
        };
        assert_eq!(run(), run());
        assert!((850..1150).contains(&run()), "{}", run());
    }
}
