//! The log of this process names nobody: each line goes through here.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::model::{KEY_BYTES, Pseudonyms};

/// What stands for people, once the store with the key is open.
static NAMES: OnceLock<Pseudonyms> = OnceLock::new();
/// Until then, and where there is no store.
static UNTIL_THEN: OnceLock<Pseudonyms> = OnceLock::new();

/// From here on the log shows people as statuses do.
pub(super) fn know(names: Pseudonyms) {
    // Once set it stays: there is one store in a process.
    let _ = NAMES.set(names);
}

/// A line of the log without the names of people.
#[must_use]
pub fn without_names(line: &str) -> Cow<'_, str> {
    let names =
        NAMES.get().unwrap_or_else(|| UNTIL_THEN.get_or_init(|| Pseudonyms::new(&rand::random::<[u8; KEY_BYTES]>())));
    names.text(line)
}
