//! Policy etags: `0x07` and seven big-endian bytes of microseconds since the epoch, in base64.

use std::fmt::Write;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

/// The bytes of `ACAB`, the etag of a policy that was never set.
pub(crate) const NEVER_SET: [u8; 3] = [0x00, 0x20, 0x01];

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE_LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The etag of a policy version; `None` is the never-set policy.
pub(crate) fn bytes(micros: Option<u64>) -> Vec<u8> {
    match micros {
        None => NEVER_SET.to_vec(),
        Some(micros) => {
            let mut bytes = micros.to_be_bytes().to_vec();
            bytes[0] = 0x07;
            bytes
        }
    }
}

/// The etag as it is in JSON.
pub(crate) fn text(micros: Option<u64>) -> String {
    BASE64_STANDARD.encode(bytes(micros))
}

/// Parses a JSON etag: both base64 alphabets, with optional padding, as in protobuf's JSON mapping.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD_LENIENT.decode(text).or_else(|_| URL_SAFE_LENIENT.decode(text)).ok()
}

/// Etag bytes as they are in the conflict message: printable bytes stay, a quote gets a backslash, all others are
/// octal.
pub(crate) fn octal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\'' => text.push_str("\\'"),
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_etag_decodes_to_its_moment_and_back() {
        let bytes_of_sample = decode("BwWWja0YfJA=").unwrap();
        assert_eq!(bytes_of_sample[0], 0x07);
        let mut micros = [0u8; 8];
        micros[1..].copy_from_slice(&bytes_of_sample[1..]);
        let micros = u64::from_be_bytes(micros);
        assert!(
            jiff::Timestamp::from_microsecond(i64::try_from(micros).unwrap())
                .unwrap()
                .to_string()
                .starts_with("2019-11-04T23:28:42.17")
        );
        assert_eq!(text(Some(micros)), "BwWWja0YfJA=");
    }

    #[test]
    fn never_set_is_acab() {
        assert_eq!(text(None), "ACAB");
        assert_eq!(octal(&bytes(None)), "\\000 \\001");
    }

    #[test]
    fn observed_conflict_bytes_are_escaped_as_observed() {
        let observed = [0o7, 0o5, 0o350, b'\'', b',', 0o273, b'P', 0o21];
        assert_eq!(octal(&observed), "\\007\\005\\350\\',\\273P\\021");
    }
}
