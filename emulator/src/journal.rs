//! Journal of calls, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::policy::{self, Policy};

/// One call and its outcome.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Sequence number of the call; never reused, not even after `reset`.
    pub seq: u64,
    /// Time of the decision about the call.
    pub time: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path without query, percent-decoded.
    pub path: String,
    /// Raw query string without the question mark.
    pub query: String,
    /// The principal behind the token; `anonymous` without one; `token:` and eight digits of its hash if unknown.
    pub caller: String,
    /// The body as sent; empty for calls that carry credentials.
    pub body: Bytes,
    /// The status sent; none when the connection was dropped.
    pub status: Option<u16>,
    /// The injected fault that affected the call.
    pub fault: Option<&'static str>,
    /// True when the call changed a policy or a resource.
    pub committed: bool,
    /// The canonical name of the resource, when the call was about a policy.
    pub resource: Option<String>,
    /// True when the call was made through the control API, not by a client.
    pub control: bool,
    pub(crate) policies: Option<Versions>,
}

impl Entry {
    /// The policy before the call as in a version 3 read; none when the call was not about a policy.
    pub fn before(&self) -> Option<Value> {
        self.policies.as_ref().map(|versions| policy::render(versions.before.as_deref(), 3))
    }

    /// The policy after the call; none when it did not change.
    pub fn after(&self) -> Option<Value> {
        self.committed
            .then(|| self.policies.as_ref().map(|versions| policy::render(versions.after.as_deref(), 3)))
            .flatten()
    }

    /// The body as JSON, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(crate) fn to_json(&self, with_policies: bool) -> Value {
        let mut object = Map::new();
        object.insert("seq".into(), json!(self.seq));
        object.insert("time".into(), json!(self.time.to_string()));
        object.insert("method".into(), json!(self.method));
        object.insert("path".into(), json!(self.path));
        object.insert("query".into(), json!(self.query));
        object.insert("caller".into(), json!(self.caller));
        object.insert("status".into(), json!(self.status));
        object.insert("fault".into(), json!(self.fault));
        object.insert("committed".into(), json!(self.committed));
        object.insert("resource".into(), json!(self.resource));
        object.insert("control".into(), json!(self.control));
        if with_policies {
            let body = if self.body.is_empty() {
                Value::Null
            } else {
                self.json().unwrap_or_else(|| Value::String(String::from_utf8_lossy(&self.body).into_owned()))
            };
            object.insert("body".into(), body);
            object.insert("before".into(), self.before().unwrap_or_default());
            object.insert("after".into(), self.after().unwrap_or_default());
        }
        Value::Object(object)
    }

    fn weight(&self) -> usize {
        let policies = match &self.policies {
            // The version before is normally counted by the entry that wrote it.
            Some(Versions { after: Some(after), .. }) if self.committed => after.weight(),
            _ => 0,
        };
        256 + self.path.len() + self.query.len() + self.body.len() + policies
    }
}

/// A policy before and after a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions {
    pub(crate) before: Option<Arc<Policy>>,
    pub(crate) after: Option<Arc<Policy>>,
}

/// The calls so far, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    last_seq: u64,
    dropped: u64,
}

impl Journal {
    /// Adds a call and drops the oldest calls beyond the bounds.
    pub(crate) fn push(&mut self, mut entry: Entry, max_entries: usize, max_bytes: usize) {
        self.last_seq += 1;
        entry.seq = self.last_seq;
        self.bytes += entry.weight();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > max_entries || (self.bytes > max_bytes && !self.entries.is_empty()) {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.weight();
                self.dropped += 1;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.dropped = 0;
    }

    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Number of calls dropped because of the bounds since the last clearing.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}
