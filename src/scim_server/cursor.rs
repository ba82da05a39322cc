//! Cursors (RFC 9865): where a list continues. The text holds all of it, so that the server remembers nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::scim::ScimError;
use crate::scim::schema::CURSOR_TIMEOUT;

/// Length of a cursor before it is encoded: kind, place, time of issue, digest.
const LENGTH: usize = 1 + 8 + 8 + 8;

/// Where a list continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind this position, in the order of creation.
    After(i64),
    /// Behind this many results.
    Skip(u64),
}

/// Digest of a cursor's content and of the list that it belongs to. It tells cursors of other lists and damaged ones
/// apart. Whoever forges one gets at nothing that another query would not show.
fn digest(content: &[u8], list: &str) -> [u8; 8] {
    let mut short = [0; 8];
    let whole = Sha256::new().chain_update(content).chain_update(list).finalize();
    for (to, from) in short.iter_mut().zip(whole) {
        *to = from;
    }
    short
}

/// The text of a cursor of a list. `list` identifies it: provider, type, filter and order.
pub(super) fn encode(place: Place, list: &str, now: Timestamp) -> String {
    let (kind, number) = match place {
        Place::After(position) => (1_u8, position.to_be_bytes()),
        Place::Skip(count) => (2, count.to_be_bytes()),
    };
    let mut bytes = vec![kind];
    bytes.extend(number);
    bytes.extend(now.as_second().to_be_bytes());
    bytes.extend(digest(&bytes, list));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place of a cursor.
///
/// # Errors
/// `invalidCursor`, `expiredCursor`.
pub(super) fn decode(text: &str, list: &str, now: Timestamp) -> Result<Place, ScimError> {
    let invalid = || ScimError::InvalidCursor;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| invalid())?;
    let (content, tag) = bytes.split_at(LENGTH - 8);
    if tag != digest(content, list) {
        return Err(invalid());
    }
    let number = |from: usize| <[u8; 8]>::try_from(&bytes[from..from + 8]).map_err(|_| invalid());
    let age = now.as_second().saturating_sub(i64::from_be_bytes(number(9)?));
    if age > CURSOR_TIMEOUT {
        return Err(ScimError::ExpiredCursor);
    }
    match bytes[0] {
        1 => Ok(Place::After(i64::from_be_bytes(number(1)?))),
        2 => Ok(Place::Skip(u64::from_be_bytes(number(1)?))),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_by_its_list_only_and_for_an_hour() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        for place in [Place::After(7), Place::After(i64::MAX), Place::Skip(0), Place::Skip(1000)] {
            let text = encode(place, "okta User", now);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)), "{text}");
            assert_eq!(decode(&text, "okta User", now), Ok(place));
            assert_eq!(decode(&text, "entra User", now), Err(ScimError::InvalidCursor));
            let later = now + std::time::Duration::from_secs(3601);
            assert_eq!(decode(&text, "okta User", later), Err(ScimError::ExpiredCursor));
            for index in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[index] = if other[index] == b'A' { b'B' } else { b'A' };
                assert!(decode(&String::from_utf8(other).unwrap(), "okta User", now).is_err());
            }
        }
        for text in ["x", "%", "ÄÖ", "AAAA"] {
            assert_eq!(decode(text, "okta User", now), Err(ScimError::InvalidCursor));
        }
    }
}
