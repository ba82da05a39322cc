//! Waiting until rolecall has nothing left to do, by `/progress` on its admin port. A test then looks once.

use jiff::Timestamp;
use serde_json::Value;

use super::{eventually, now};

/// The progress of a process, read from its admin port.
pub(crate) struct Progress {
    /// Base of the admin port.
    pub(crate) admin_url: String,
    pub(crate) http: reqwest::Client,
}

impl Progress {
    /// What `/progress` answers.
    async fn answer(&self) -> Result<Value, String> {
        let answer = self.http.get(format!("{}/progress", self.admin_url)).send().await;
        answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())
    }

    async fn until(&self, what: &str, done: impl Fn(&Value) -> bool) {
        eventually(what, async || {
            let answer = self.answer().await?;
            if done(&answer) { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }

    /// Waits until nothing is left to do of what was answered or written to the folder before this call.
    pub(crate) async fn settled(&self) {
        let asked = now();
        self.until("settled", |answer| is_settled(answer, asked)).await;
    }

    /// Waits until that is so, and until all targets were listed and all policies read again since this call, so that
    /// what these say has its effect.
    pub(crate) async fn settled_and_read(&self) {
        let asked = now();
        self.until("settled, with everything read again", |answer| {
            let engine = &answer["engine"];
            is_settled(answer, asked)
                && since(&engine["documentsReadSince"], asked)
                && since(&engine["targetsListedSince"], asked)
        })
        .await;
    }

    /// Waits until all policies were read so many times, one whole round after another.
    pub(crate) async fn rounds(&self, count: usize) {
        for _ in 0..count {
            let asked = now();
            self.until("every policy is read again", |answer| since(&answer["engine"]["documentsReadSince"], asked))
                .await;
        }
    }
}

/// True when this happened at that time or later.
fn since(time: &Value, asked: Timestamp) -> bool {
    time.as_str().and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|time| time >= asked)
}

fn is_settled(answer: &Value, asked: Timestamp) -> bool {
    // Without a folder of manifests there is nothing to read there.
    let folder = answer.get("manifests").is_none_or(|folder| since(&folder["inForceSince"], asked));
    answer["settled"] == true && folder
}
