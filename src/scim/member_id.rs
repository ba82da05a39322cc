//! Ids of members, which clients write in the form of this server or of their own.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Parses an id in the form that this server issues: a hyphenated UUID.
#[must_use]
pub(crate) fn issued_id(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// The id under which a member of this name is stored until a resource with it is known, either as `id` or as
/// `externalId`. The same text gives the same id, so that a member that waits can be removed again. A text that is not in
/// the form of this server has an id of version 8 (RFC 9562 §5.8), which is never issued.
#[must_use]
pub(crate) fn member_id(text: &str) -> Uuid {
    issued_id(text).unwrap_or_else(|| {
        let mut bytes = [0; 16];
        for (byte, digest) in bytes.iter_mut().zip(Sha256::digest(text)) {
            *byte = digest;
        }
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}
