//! A keyed permutation of words that keeps their shape: length, letters and digits, case, width and marks.
//!
//! Words that are equal without regard to case, width or Unicode form stay so, and different words stay different. No word stays
//! itself. Without the key nobody gets from a replaced word to the one before.

use std::fmt::Write as _;

use ring::hmac;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use crate::model::KEY_BYTES;

/// Rounds of the Feistel network.
const ROUNDS: u8 = 4;
/// Letters that depend on each other. A longer word is replaced in parts, so that the work grows with its length.
const PART: usize = 64;
/// Letters of one script that replace each other: the first, and how many.
const SCRIPTS: [(char, u32); 5] = [('a', 26), ('0', 10), ('а', 32), ('α', 17), (HAN, HAN_LETTERS)];
/// Characters of other scripts, and symbols, become one of these.
const HAN: char = '\u{4E00}';
const HAN_LETTERS: u32 = 20_902;

/// A character of a word.
struct Letter {
    /// The first letter of its script, the number of letters there, and its place among them.
    first: char,
    letters: u32,
    place: u32,
    upper: bool,
    wide: bool,
    marks: String,
    /// Letter and marks were one character.
    composed: bool,
}

/// Replaces words. The key never leaves this value.
pub(super) struct Words {
    key: hmac::Key,
    /// Bytes that were hashed.
    #[cfg(test)]
    pub(super) hashed: std::sync::atomic::AtomicUsize,
}

/// True for characters that words consist of. ASCII signs and what separates words stay as they are.
pub(super) fn is_part(character: char) -> bool {
    let separates = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}' | super::PLUS)
    };
    match character {
        _ if character.is_alphanumeric() => true,
        // ASCII, and fullwidth signs such as `＠`.
        '\u{0}'..='\u{7F}' | '\u{FF01}'..='\u{FF20}' | '\u{FF3B}'..='\u{FF40}' | '\u{FF5B}'..='\u{FF65}' => false,
        other => !separates(other),
    }
}

impl Words {
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            #[cfg(test)]
            hashed: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// Another word of the same shape.
    pub(super) fn other(&self, word: &str) -> String {
        let mut letters = self.letters(word);
        letters.chunks_mut(PART).for_each(|part| self.replace(part));
        letters.iter().map(Letter::text).collect()
    }

    fn replace(&self, letters: &mut [Letter]) {
        let sizes: Vec<u32> = letters.iter().map(|letter| letter.letters).collect();
        let mut places: Vec<u32> = letters.iter().map(|letter| letter.place).collect();
        // The conjugate of a permutation without fixed points has none either.
        self.permute(&mut places, &sizes, false);
        let steps = self.stream(b's', &[], sizes.len());
        for (index, ((place, size), step)) in places.iter_mut().zip(&sizes).zip(steps).enumerate() {
            let step = if index == 0 { 1 + step % (size - 1) } else { step };
            *place = add(*place, step, *size);
        }
        self.permute(&mut places, &sizes, true);
        for (letter, place) in letters.iter_mut().zip(places) {
            letter.place = place;
        }
    }

    fn letters(&self, word: &str) -> Vec<Letter> {
        let mut letters: Vec<Letter> = Vec::new();
        for character in word.chars() {
            match letters.last_mut() {
                Some(last) if is_combining_mark(character) => last.marks.push(character),
                _ => letters.push(self.letter(character)),
            }
        }
        letters
    }

    fn letter(&self, character: char) -> Letter {
        let mut parts = character.nfd();
        let (first, marks) = (parts.next().unwrap_or(character), parts.collect::<String>());
        let composed = !marks.is_empty() && marks.chars().all(is_combining_mark);
        let (base, marks) = if composed { (first, marks) } else { (character, String::new()) };
        let narrow = if matches!(base, '\u{FF01}'..='\u{FF5E}') { char::from_u32(base as u32 - 0xFEE0) } else { None };
        let (base, wide) = narrow.map_or((base, false), |narrow| (narrow, true));
        let lower = single(base.to_lowercase()).filter(|lower| single(lower.to_uppercase()) == Some(base));
        let upper = lower.is_some_and(|lower| lower != base);
        let base = lower.filter(|_| upper).unwrap_or(base);
        let known = SCRIPTS.iter().find_map(|(first, letters)| {
            let place = (base as u32).checked_sub(*first as u32).filter(|place| place < letters)?;
            Some((*first, *letters, place))
        });
        let (first, letters, place) = known.unwrap_or_else(|| {
            let drawn = self.stream(b'c', &[base as u32], 1).first().copied().unwrap_or_default();
            (HAN, HAN_LETTERS, drawn % HAN_LETTERS)
        });
        Letter { first, letters, place, upper, wide, marks, composed }
    }

    /// A Feistel network over the halves of a word: each letter depends on all others.
    fn permute(&self, places: &mut [u32], sizes: &[u32], forward: bool) {
        let middle = places.len() / 2;
        for step in 0..ROUNDS {
            let round = if forward { step } else { ROUNDS - 1 - step };
            let (left, right) = places.split_at_mut(middle);
            let (changed, of, given) =
                if round % 2 == 0 { (left, &sizes[..middle], right) } else { (right, &sizes[middle..], left) };
            let stream = self.stream(round, given, changed.len());
            for ((place, size), drawn) in changed.iter_mut().zip(of).zip(stream) {
                let drawn = drawn % size;
                *place = add(*place, if forward { drawn } else { size - drawn }, *size);
            }
        }
    }

    /// As many numbers as wanted, which depend on the purpose, their number and the given places. These are hashed once.
    pub(super) fn stream(&self, purpose: u8, given: &[u32], wanted: usize) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(wanted);
        if wanted == 0 {
            return numbers;
        }
        let wanted_bytes = (wanted as u64).to_be_bytes();
        let given = given.iter().map(|place| place.to_be_bytes());
        let first = self.hash(b'1', [purpose].into_iter().chain(wanted_bytes).chain(given.flatten()));
        let (mut block, mut count) = (first, 0_u64);
        loop {
            let words =
                block.as_ref().chunks_exact(4).filter_map(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
            numbers.extend(words.take(wanted - numbers.len()));
            if numbers.len() >= wanted {
                return numbers;
            }
            count += 1;
            block = self.hash(b'2', count.to_be_bytes().into_iter().chain(first.as_ref().iter().copied()));
        }
    }

    /// The hash of bytes for one of two purposes.
    fn hash(&self, purpose: u8, bytes: impl Iterator<Item = u8>) -> hmac::Tag {
        let bytes: Vec<u8> = [purpose].into_iter().chain(bytes).collect();
        #[cfg(test)]
        self.hashed.fetch_add(bytes.len(), std::sync::atomic::Ordering::Relaxed);
        hmac::sign(&self.key, &bytes)
    }

    /// A number of days below a limit that belongs to the key.
    pub(super) fn days(&self, below: u32) -> u32 {
        self.stream(b't', &[], 1).first().map_or(0, |drawn| drawn % below)
    }
}

fn add(place: u32, step: u32, size: u32) -> u32 {
    let sum = (u64::from(place) + u64::from(step)) % u64::from(size);
    u32::try_from(sum).unwrap_or_default()
}

fn single(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next()?;
    characters.next().is_none().then_some(first)
}

impl Letter {
    fn text(&self) -> String {
        let mut letter = char::from_u32(self.first as u32 + self.place).unwrap_or(HAN);
        if self.upper {
            letter = single(letter.to_uppercase()).unwrap_or(letter);
        }
        if self.wide {
            letter = char::from_u32(letter as u32 + 0xFEE0).unwrap_or(letter);
        }
        let mut text = String::from(letter);
        // Writing into a String does not fail.
        let _ = write!(text, "{}", self.marks);
        if self.composed { text.nfc().collect() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::super::text::{fold, fold_name};
    use super::*;

    fn words() -> Words {
        Words::new(&[7; KEY_BYTES])
    }

    #[test]
    fn every_word_becomes_another_one_of_its_shape() {
        for word in ["a", "Z", "7", "Al", "alice", "AliceBob42", "é", "ÉCOLE", "E\u{301}cole", "Алиса", "ＡＬice", "愛"]
        {
            let other = words().other(word);
            assert_ne!(other, word);
            assert_eq!(other.nfd().count(), word.nfd().count(), "{word} {other}");
            let shape = |text: &str| {
                text.chars().map(|one| (one.is_uppercase(), one.is_ascii_digit(), one.is_ascii())).collect::<Vec<_>>()
            };
            if word.is_ascii() {
                assert_eq!(shape(&other), shape(word), "{word} {other}");
            }
        }
        assert_ne!(Words::new(&[8; KEY_BYTES]).other("alice"), words().other("alice"));
    }

    #[test]
    fn different_words_of_one_and_two_letters_stay_different() {
        let mut seen = BTreeMap::new();
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let pairs = letters.iter().flat_map(|one| letters.iter().map(move |other| format!("{one}{other}")));
        for word in letters.iter().cloned().chain(pairs).chain((0..100).map(|number| format!("{number:02}"))) {
            let other = words().other(&word);
            assert_ne!(other, word);
            assert_eq!(seen.insert(other.clone(), word), None, "{other}");
        }
    }

    #[test]
    fn work_grows_with_the_length_of_a_word_and_long_words_stay_different() {
        let hashed = |length: usize| {
            let words = words();
            let other = words.other(&"q".repeat(length));
            assert_eq!(other.len(), length);
            words.hashed.into_inner()
        };
        assert!(hashed(64 * 1024) <= 2 * hashed(32 * 1024) + 1024);
        assert!(hashed(64 * 1024) < 64 * 1024 * 80, "{}", hashed(64 * 1024));
        let long = "q".repeat(200);
        assert_ne!(words().other(&format!("{long}a")), words().other(&format!("{long}b")));
        assert_ne!(words().other(&format!("a{long}")), words().other(&format!("b{long}")));
    }

    proptest! {
        #[test]
        fn equal_names_stay_equal_and_different_ones_different(one in "[a-cA-CéÉß０-２ａ-ｃ愛е]{1,4}", other in "[a-cA-CéÉß０-２ａ-ｃ愛е]{1,4}") {
            let replaced = |text: &str| words().other(text);
            prop_assert_eq!(fold_name(&one) == fold_name(&other), fold_name(&replaced(&one)) == fold_name(&replaced(&other)));
            prop_assert_eq!(fold(&one) == fold(&other), fold(&replaced(&one)) == fold(&replaced(&other)));
            prop_assert_eq!(one == other, replaced(&one) == replaced(&other));
            let decomposed: String = one.nfd().collect();
            prop_assert_eq!(fold_name(&replaced(&decomposed)), fold_name(&replaced(&one)));
        }
    }
}
