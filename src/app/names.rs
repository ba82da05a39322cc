//! Removes the names of people from the log: each line of the process passes through here.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::model::{KEY_BYTES, Pseudonyms};

/// Pseudonyms of people, once the store with the key is open.
static NAMES: OnceLock<Pseudonyms> = OnceLock::new();
/// Pseudonyms before that, and where there is no store.
static UNTIL_THEN: OnceLock<Pseudonyms> = OnceLock::new();

/// Sets the pseudonyms, so that the log shows people in the same way as statuses.
pub(super) fn know(names: Pseudonyms) {
    // Set only once: there is one store in a process.
    let _ = NAMES.set(names);
}

/// A log line without the names of people.
#[must_use]
pub(crate) fn without_names(line: &str) -> Cow<'_, str> {
    let names =
        NAMES.get().unwrap_or_else(|| UNTIL_THEN.get_or_init(|| Pseudonyms::new(&rand::random::<[u8; KEY_BYTES]>())));
    names.text(line)
}
