//! Mutations of inputs, from a seed.

use crate::model::Randomness;

/// Bytes that parsers treat specially.
const SPECIAL: &[u8] = b"\0\t\n\r \"'\\()[]{}:,.-+*/#&!|>%@`~_$eE019aZ\x7f\x80\xc3\xe2\xed\xf0\xff";

pub(super) struct Mutator {
    random: Randomness,
    words: &'static [&'static str],
    longest: usize,
}

impl Mutator {
    /// `words`: texts with a meaning for the target. `longest`: upper limit of an input, in bytes.
    pub(super) fn new(seed: u64, words: &'static [&'static str], longest: usize) -> Self {
        Self { random: Randomness::new(Some(seed)), words, longest }
    }

    fn below(&self, most: usize) -> usize {
        usize::try_from(self.random.draw() % most.max(1) as u64).unwrap_or(0)
    }

    /// A mutation of one of these inputs.
    pub(super) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            self.mutate(&mut input, pool);
        }
        input.truncate(self.longest);
        input
    }

    /// A range of an input.
    fn range(&self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(input.len() + 1);
        let most = if self.below(4) == 0 { input.len() } else { 16 };
        from..(from + self.below(most + 1)).min(input.len())
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(11) {
            9 | 10 if !input.is_empty() => {
                let (token, word) = (token(input, self.below(input.len())), self.words[self.below(self.words.len())]);
                let word = word.trim_end_matches([' ', ':', '\n']);
                input.splice(token, word.bytes());
            }
            0 if !input.is_empty() => {
                let at = self.below(input.len());
                input[at] ^= 1 << self.below(8);
            }
            1 => input.insert(at, SPECIAL[self.below(SPECIAL.len())]),
            2 => {
                let word = self.words[self.below(self.words.len())];
                input.splice(at..at, word.bytes());
            }
            3 => {
                let (range, word) = (self.range(input), self.words[self.below(self.words.len())]);
                input.splice(range, word.bytes());
            }
            4 => drop(input.drain(self.range(input))),
            5 => {
                let part = input[self.range(input)].to_vec();
                input.splice(at..at, part);
            }
            6 => {
                let part = input[self.range(input)].to_vec();
                let times = 1 << self.below(10);
                if part.len() * times <= self.longest {
                    input.splice(at..at, part.repeat(times));
                }
            }
            7 => {
                let other = &pool[self.below(pool.len())];
                let part = other[self.range(other)].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &pool[self.below(pool.len())];
                input.truncate(at);
                input.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
        }
    }
}

/// The quoted text, the word or the sign at this place.
fn token(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+".contains(byte);
    let quotes = || {
        let from = input[..at].iter().rposition(|byte| *byte == b'"')?;
        let to = input[at..].iter().position(|byte| *byte == b'"')?;
        let inside = input[..from].split(|byte| *byte == b'"').count() % 2 == 1;
        inside.then_some(from..at + to + 1)
    };
    if let Some(quoted) = quotes() {
        return quoted;
    }
    let from = input[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    let to = input[at..].iter().position(|byte| !is_word(byte)).map_or(input.len(), |after| at + after);
    from..to.max(at + 1)
}
