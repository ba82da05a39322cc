//! Durations as users write them: `30s`, `5m`, `1h30m`, `26h`.

use std::time::Duration;

/// Error for a text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write numbers with h, m or s, such as 30s, 5m or 1h30m")]
pub(crate) struct DurationError(String);

/// Parses a duration: one to three numbers of at most five digits, each followed by `h`, `m` or `s`; they are added.
///
/// # Errors
/// [`DurationError`] when the text has another form.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.chars().take(40).collect());
    let mut total = 0u64;
    let mut rest = text;
    for part in 0.. {
        if rest.is_empty() && part > 0 {
            break;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if part == 3 || digits == 0 || digits > 5 {
            return Err(wrong());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes().get(digits) {
            Some(b'h') => 3600,
            Some(b'm') => 60,
            Some(b's') => 1,
            _ => return Err(wrong()),
        };
        total += number * unit;
        rest = &rest[digits + 1..];
    }
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_hours_minutes_and_seconds_are_read() {
        for (text, seconds) in [("5m", 300), ("26h", 93_600), ("1h30m", 5400), ("1h1m1s", 3661), ("90s", 90), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "5d", "5ms", "1h1h1h1h", "123456s", "5M", "ⅵm"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_message_says_what_to_write() {
        let error = parse("soon").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`soon` is not a duration: write numbers with h, m or s, such as 30s, 5m or 1h30m"
        );
    }
}
