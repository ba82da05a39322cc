//! Requests and answers without what they say about people, so that they can be shown, and played again with the same result.
//!
//! Words of SCIM and UUIDs stay. Every other word becomes another one of its shape, always the same under one key
//! ([`word`]), so that equality, case and signs such as `@` and `+` survive. Times become other times, and what is for people to
//! read or secret is left out.

mod vocabulary;
mod word;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use regex::{Captures, Regex};
use serde_json::{Map, Number, Value};

use crate::model::{KEY_BYTES, ProviderName};
use vocabulary::{is_client, is_word, kind_of};
use word::Words;

/// Stands for an encoded `+` in a query, which means another character than a raw one.
const PLUS: char = '\u{E000}';
/// What is percent-encoded in a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'+').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The URL of the server in redacted texts.
pub(crate) const SERVER: &str = "https://rolecall.invalid";
/// Secrets become this.
const SECRET: &str = "secret";

/// How the value of an attribute or parameter is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Words of SCIM and digits stay: types, operations, URNs.
    Vocabulary,
    /// A filter, a path or a list of attributes.
    Expression,
    /// A URL of a resource.
    Reference,
    /// Base64.
    Binary,
    /// A password.
    Secret,
    /// A number of the protocol.
    Count,
    /// For people to read.
    Prose,
    /// Anything else.
    Personal,
}

/// Replaces what requests say about people. The key never leaves this value.
pub(crate) struct Redactor {
    words: Words,
    shift: SignedDuration,
    /// The SCIM base URL, which stays recognizable, and what stands for it.
    base: (String, String),
}

impl Redactor {
    /// Replacements under a key, for the requests of a provider to a server with this URL.
    pub(crate) fn new(key: &[u8; KEY_BYTES], server: &str, provider: &ProviderName) -> Self {
        let words = Words::new(key);
        let days = i64::from(words.seconds(600)) + 30;
        let base = |server: &str| format!("{}/idp/{provider}/scim/v2", server.trim_end_matches('/'));
        Self { words, shift: SignedDuration::from_hours(-24 * days), base: (base(server), base(SERVER)) }
    }

    /// A body.
    pub(crate) fn body(&self, body: &Value) -> Value {
        self.json(body, Treatment::Personal)
    }

    /// A body that is not JSON.
    pub(crate) fn text(&self, text: &str) -> String {
        self.kept_words(text, is_word)
    }

    /// The value of a header. Names of clients and media types stay.
    pub(crate) fn header(&self, value: &str) -> String {
        self.kept_words(value, |word| is_word_or_digits(word) || is_client(word))
    }

    /// An attribute path.
    pub(crate) fn path(&self, path: &str) -> String {
        self.expression(path)
    }

    /// The path of a URL below the SCIM base URL.
    pub(crate) fn url_path(&self, path: &str) -> String {
        let segments = path.split('/').map(|segment| {
            let text = percent_decode_str(segment).decode_utf8_lossy();
            if text.starts_with("urn:") || is_word(&text) || segment == ".search" {
                return self.kept_words(segment, is_word_or_digits);
            }
            let encoded = utf8_percent_encode(&self.personal(&text), ENCODED).to_string();
            if *text == *segment { self.personal(&text) } else { encoded }
        });
        segments.collect::<Vec<_>>().join("/")
    }

    /// The query of a URL. Raw and encoded plus signs stay what they are.
    pub(crate) fn query(&self, query: &str) -> String {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
            let name =
                self.kept_words(name, |word| is_word(word) || word.starts_with("aad") || word.starts_with("AzureAd"));
            let Some(value) = value else { return name };
            let marked = value.replace("%2B", &PLUS.to_string()).replace("%2b", &PLUS.to_string());
            let text = percent_decode_str(&marked).decode_utf8_lossy().into_owned();
            let redacted = self.string(&text, kind_of(&name));
            let encoded = utf8_percent_encode(&redacted, ENCODED).to_string();
            format!("{name}={}", encoded.replace("%EE%80%80", "%2B"))
        };
        query.split('&').map(pair).collect::<Vec<_>>().join("&")
    }

    fn json(&self, value: &Value, treatment: Treatment) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(_) if treatment == Treatment::Count => value.clone(),
            Value::Number(number) => Value::Number(self.number(number)),
            Value::String(text) => Value::String(self.string(text, treatment)),
            Value::Array(list) => list.iter().map(|item| self.json(item, treatment)).collect(),
            Value::Object(members) => {
                let path = members.iter().find(|(name, _)| name.eq_ignore_ascii_case("path"));
                let target = path.and_then(|(_, path)| path.as_str()).map(kind_of);
                let member = |(name, value): (&String, &Value)| {
                    // What an operation sets, or an object wraps.
                    let own = match kind_of(name) {
                        Treatment::Personal if name.eq_ignore_ascii_case("value") => target.unwrap_or(treatment),
                        own => own,
                    };
                    (self.expression(name), self.json(value, own))
                };
                Value::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
        }
    }

    fn number(&self, number: &Number) -> Number {
        let text = number.to_string();
        let mut digits = text.clone();
        // Until there is no leading zero: then it is a number of the same length.
        for _ in 0..100 {
            digits = self.kept_words(&digits, |word| !word.bytes().all(|byte| byte.is_ascii_digit()));
            let leads = digits.trim_start_matches('-');
            if !leads.starts_with('0') || leads.starts_with("0.") || leads.len() == 1 {
                break;
            }
        }
        digits.parse().unwrap_or_else(|_| Number::from(0))
    }

    fn string(&self, text: &str, treatment: Treatment) -> String {
        if text.trim().is_empty() {
            return text.to_owned();
        }
        if text.trim_start().starts_with(['{', '['])
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            return self.json(&value, treatment).to_string();
        }
        match treatment {
            // Times of the server are of nobody.
            Treatment::Vocabulary if text.parse::<Timestamp>().is_ok() => text.to_owned(),
            Treatment::Vocabulary => self.kept_words(text, is_word_or_digits),
            Treatment::Expression => self.expression(text),
            Treatment::Reference => self.reference(text),
            Treatment::Binary => self.binary(text),
            Treatment::Secret => SECRET.to_owned(),
            Treatment::Prose => String::new(),
            Treatment::Count if text.len() <= 5 && text.parse::<i64>().is_ok() => text.to_owned(),
            Treatment::Count | Treatment::Personal => self.personal(text),
        }
    }

    /// Text of which every word is replaced, except for UUIDs and references to operations of a bulk request.
    fn personal(&self, text: &str) -> String {
        if let Some(rest) = text.strip_prefix("bulkId:") {
            return format!("bulkId:{}", self.personal(rest));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return time.checked_add(self.shift).unwrap_or(time).to_string();
        }
        if is_cursor(text) {
            return text.to_owned();
        }
        self.kept_words(text, |_| false)
    }

    fn reference(&self, text: &str) -> String {
        match text.strip_prefix(&self.base.0) {
            Some(rest) => format!("{}{}", self.base.1, self.kept_words(rest, is_word_or_digits)),
            None => self.kept_words(text, is_word),
        }
    }

    /// Base64 of other bytes, as many as before.
    fn binary(&self, text: &str) -> String {
        let Ok(bytes) = STANDARD.decode(text.trim()) else { return self.personal(text) };
        let given: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
        let others = self.words.stream(b'b', &given, bytes.len());
        STANDARD.encode(others.into_iter().map(|drawn| drawn.to_be_bytes()[0]).collect::<Vec<u8>>())
    }

    /// Replaces the words that are not kept. UUIDs are.
    fn kept_words(&self, text: &str, keeps: impl Fn(&str) -> bool) -> String {
        static UUID: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").ok());
        let mut replaced = String::with_capacity(text.len());
        let mut end = 0;
        let uuids = UUID.as_ref().map(|pattern| pattern.find_iter(text));
        for uuid in uuids.into_iter().flatten() {
            self.replace_words(&text[end..uuid.start()], &keeps, &mut replaced);
            replaced.push_str(uuid.as_str());
            end = uuid.end();
        }
        self.replace_words(&text[end..], &keeps, &mut replaced);
        replaced
    }

    fn replace_words(&self, text: &str, keeps: &impl Fn(&str) -> bool, to: &mut String) {
        let mut rest = text;
        while let Some(start) = rest.find(word::is_part) {
            to.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(|character| !word::is_part(character)).unwrap_or(rest.len());
            let word = &rest[..end];
            if keeps(word) {
                to.push_str(word);
            } else {
                to.push_str(&self.words.other(word));
            }
            rest = &rest[end..];
        }
        to.push_str(rest);
    }

    /// A filter or path: its words stay, and texts in quotation marks are treated as what they are compared with.
    fn expression(&self, text: &str) -> String {
        static QUOTED: LazyLock<Option<Regex>> = LazyLock::new(|| {
            Regex::new(r#"(?:([A-Za-z$][\w.:$-]*)[\s+]+[A-Za-z]{2}[\s+]*)?("(?:[^"\\]|\\.)*(?:"|$))"#).ok()
        });
        let Some(pattern) = &*QUOTED else { return String::new() };
        let mut replaced = String::new();
        let mut end = 0;
        for found in pattern.captures_iter(text) {
            let Some(quoted) = found.get(2) else { continue };
            replaced.push_str(&self.kept_words(&text[end..quoted.start()], is_word_or_digit));
            replaced.push_str(&self.literal(&found, quoted.as_str()));
            end = quoted.end();
        }
        replaced.push_str(&self.kept_words(&text[end..], is_word_or_digit));
        replaced
    }

    fn literal(&self, found: &Captures<'_>, quoted: &str) -> String {
        let Ok(text) = serde_json::from_str::<String>(quoted) else { return self.kept_words(quoted, |_| false) };
        let name = found.get(1).map_or("", |name| name.as_str());
        if name.to_ascii_lowercase().contains("meta.") && text.parse::<Timestamp>().is_ok() {
            return quoted.to_owned();
        }
        Value::String(self.string(&text, kind_of(name))).to_string()
    }
}

fn is_word_or_digits(word: &str) -> bool {
    is_word(word) || (word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_word_or_digit(word: &str) -> bool {
    is_word(word) || (word.len() == 1 && word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// True for what has the form of a cursor of this server, which says nothing about people.
fn is_cursor(text: &str) -> bool {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    text.len() == 34 && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| matches!(bytes.first(), Some(1 | 2)))
}

#[cfg(test)]
mod tests;
