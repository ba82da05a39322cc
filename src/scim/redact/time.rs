//! Times become other times with the same order.
//!
//! A distance between two times becomes another one, which the key decides anew at each scale from decades to minutes: who knows
//! one time and what replaced it knows others only roughly.

use jiff::Timestamp;

use super::word::Words;

/// Nanoseconds of a second.
const SECOND: i128 = 1_000_000_000;
/// Distances of the points between which time runs evenly, in seconds: 19 years, 400 days, a month, a day, an hour, a minute.
const SCALES: [i128; 6] = [7000 * 86_400, 400 * 86_400, 30 * 86_400, 86_400, 3600, 60];
/// The longest move of a point, in hundredths of the distance. All scales together stay below 100, and time runs twice as fast
/// as before: a later time becomes a later one.
const MOVED: i128 = 15;
/// Fractions of a nanosecond that are calculated with.
const FRACTION: u32 = 8;
/// Days by which all times move at least, and a limit of what the key adds. No time of a living person becomes itself.
const MOVED_DAYS: (u32, u32) = (200 * 365, 400 * 365);

/// The time that replaces another one. None: it is too far from the present.
pub(super) fn other(words: &Words, time: Timestamp) -> Option<Timestamp> {
    let given = time.as_nanosecond();
    let scales = (0_u32..).zip(SCALES);
    let moved: i128 = scales.map(|(scale, seconds)| offset(words, scale, seconds * SECOND, given)).sum();
    let days = i128::from(MOVED_DAYS.0 + words.days(MOVED_DAYS.1));
    let nanoseconds = 2 * given - days * 86_400 * SECOND + (moved >> FRACTION);
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// The text that replaces a time or a date. None: it is neither, or too far from the present.
pub(super) fn other_text(words: &Words, text: &str) -> Option<String> {
    let replaced = if let Ok(time) = text.parse::<Timestamp>() {
        other(words, time)?.to_string()
    } else {
        let is_sign = |index: usize| text.as_bytes().get(index) == Some(&b'-');
        if text.len() != 10 || !is_sign(4) || !is_sign(7) {
            return None;
        }
        let midnight = format!("{text}T00:00:00Z").parse().ok()?;
        other(words, midnight)?.to_string().get(..10)?.to_owned()
    };
    // Years before 0 have another form.
    replaced.starts_with(|first: char| first.is_ascii_digit()).then_some(replaced)
}

/// The move of a time by one scale, in fractions of a nanosecond.
fn offset(words: &Words, scale: u32, length: i128, time: i128) -> i128 {
    let (point, rest) = (time.div_euclid(length), time.rem_euclid(length));
    let drawn = |point: i128| {
        let parts = point.to_be_bytes();
        let parts = parts.chunks_exact(4).filter_map(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
        let given: Vec<u32> = [scale].into_iter().chain(parts).collect();
        let drawn = words.stream(b'j', &given, 1).first().copied().unwrap_or_default();
        (length / 100 * MOVED * i128::from(drawn)) >> 32
    };
    ((drawn(point) * (length - rest) + drawn(point + 1) * rest) << FRACTION) / length
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::KEY_BYTES;

    fn words(key: u8) -> Words {
        Words::new(&[key; KEY_BYTES])
    }

    #[test]
    fn one_known_date_does_not_show_another_one() {
        let at = |key: u8, text: &str| other(&words(key), text.parse().unwrap()).unwrap().as_second();
        let mut distances = BTreeSet::new();
        let mut times_of_day = BTreeSet::new();
        for key in 0..50 {
            let (birth, hired) = (at(key, "1980-02-03T00:00:00Z"), at(key, "2020-01-31T00:00:00Z"));
            distances.insert((hired - birth) / 86_400);
            times_of_day.insert(birth.rem_euclid(86_400));
        }
        assert!(distances.len() > 40 && times_of_day.len() > 40, "{distances:?} {times_of_day:?}");
        let spread = distances.last().unwrap() - distances.first().unwrap();
        assert!(spread > 365, "{spread}");
    }

    #[test]
    fn dates_become_dates_and_what_is_too_far_is_none() {
        let words = words(3);
        let date = other_text(&words, "1980-02-03").unwrap();
        assert!(date.len() == 10 && date.parse::<jiff::civil::Date>().is_ok() && !date.starts_with("1980"), "{date}");
        for text in
            ["9999-12-31T00:00:00Z", "9999-12-31", "0001-01-01T00:00:00Z", "20200131", "2020-13-31", "1234-56-78", "a"]
        {
            assert_eq!(other_text(&words, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_keep_their_order(one in -3_000_000_000_000_i64..5_000_000_000_000, distance in prop_oneof![1_i64..5, 1_i64..100_000_000_000], key in any::<u8>()) {
            let words = words(key);
            let at = |milliseconds: i64| Timestamp::from_millisecond(milliseconds).unwrap();
            let (earlier, later) = (at(one), at(one + distance));
            prop_assert!(other(&words, earlier).unwrap() < other(&words, later).unwrap());
            prop_assert!(other(&words, earlier).unwrap() != earlier);
            let next = Timestamp::from_nanosecond(earlier.as_nanosecond() + 1).unwrap();
            prop_assert!(other(&words, earlier).unwrap() < other(&words, next).unwrap());
        }

        #[test]
        fn dates_keep_their_order(day in -30_000_i64..50_000, days in 1_i64..3, key in any::<u8>()) {
            let words = words(key);
            let date = |day: i64| Timestamp::from_second(day * 86_400).unwrap().to_string()[..10].to_owned();
            let replaced = |day: i64| other_text(&words, &date(day)).unwrap();
            prop_assert!(replaced(day) < replaced(day + days));
        }
    }
}
