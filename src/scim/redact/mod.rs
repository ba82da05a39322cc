//! Requests and answers without what they say about people, so that they can be shown, and played again with the same result.
//!
//! Words of SCIM and UUIDs stay. Every other word becomes another one of its shape, always the same under one key
//! ([`word`]), so that equality, case and signs such as `@` and `+` survive. Times become other times ([`time`]), and what is for
//! people to read or secret is left out.

mod time;
mod vocabulary;
mod word;

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
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

/// The treatment of the value of an attribute or parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Words of SCIM and versions in URNs stay: types, operations, schemas.
    Vocabulary,
    /// The status of an answer.
    Status,
    /// The version of a resource.
    Version,
    /// A time that the server gave.
    ServerTime,
    /// A cursor of this server, which says nothing about people.
    Cursor,
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
    /// The SCIM base URL, which stays recognizable, and what stands for it.
    base: (String, String),
}

impl Redactor {
    /// Replacements under a key, for the requests of a provider to a server with this URL.
    pub(crate) fn new(key: &[u8; KEY_BYTES], server: &str, provider: &ProviderName) -> Self {
        let base = |server: &str| format!("{}/idp/{provider}/scim/v2", server.trim_end_matches('/'));
        Self { words: Words::new(key), base: (base(server), base(SERVER)) }
    }

    /// A body.
    pub(crate) fn body(&self, body: &Value) -> Value {
        self.json(body, Treatment::Personal, true)
    }

    /// A body that is not JSON.
    pub(crate) fn text(&self, text: &str) -> String {
        self.kept_words(text, Kept::Uuids, is_word)
    }

    /// The value of a header. Names of clients with their versions, media types and versions of resources stay.
    pub(crate) fn header(&self, value: &str) -> String {
        self.kept_words(value, Kept::Headers, |word| is_word(word) || is_client(word))
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
                return self.kept_words(segment, Kept::Urns, is_word);
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
            let name = self.kept_words(name, Kept::Urns, |word| is_word(word) || is_flag_of_entra(word));
            let Some(value) = value else { return name };
            let marked = value.replace("%2B", &PLUS.to_string()).replace("%2b", &PLUS.to_string());
            let text = percent_decode_str(&marked).decode_utf8_lossy().into_owned();
            let redacted = self.string(&text, kind_of(&name), true);
            let encoded = utf8_percent_encode(&redacted, ENCODED).to_string();
            format!("{name}={}", encoded.replace("%EE%80%80", "%2B"))
        };
        query.split('&').map(pair).collect::<Vec<_>>().join("&")
    }

    /// `outer`: texts may be JSON themselves. What is inside of such a text is not looked into again.
    fn json(&self, value: &Value, treatment: Treatment, outer: bool) -> Value {
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Number(number) if treatment.keeps(number) => value.clone(),
            Value::Number(number) => Value::Number(self.number(number)),
            Value::String(text) => Value::String(self.string(text, treatment, outer)),
            Value::Array(list) => list.iter().map(|item| self.json(item, treatment, outer)).collect(),
            Value::Object(members) => {
                let path = members.iter().find(|(name, _)| name.eq_ignore_ascii_case("path"));
                let target = path.and_then(|(_, path)| path.as_str()).map(kind_of);
                let member = |(name, value): (&String, &Value)| {
                    // What an operation sets, or an object wraps.
                    let own = match kind_of(name) {
                        Treatment::Personal if name.eq_ignore_ascii_case("value") => target.unwrap_or(treatment),
                        own => own,
                    };
                    (self.expression(name), self.json(value, own, outer))
                };
                Value::Object(members.iter().map(member).collect::<Map<_, _>>())
            }
        }
    }

    /// A number with other digits. Its exponent stays.
    fn number(&self, number: &Number) -> Number {
        let text = number.to_string();
        let (given, exponent) = text.split_at(text.find(['e', 'E']).unwrap_or(text.len()));
        let leads = |digits: &str| {
            let whole = digits.trim_start_matches('-');
            !whole.starts_with('0') || whole.starts_with("0.") || whole.len() == 1
        };
        let first = self.kept_words(given, Kept::Nothing, |_| false);
        let mut digits = first.clone();
        // Until there is no leading zero: then it is a number of the same length.
        for _ in 0..100 {
            if leads(&digits) {
                break;
            }
            digits = self.kept_words(&digits, Kept::Nothing, |_| false);
        }
        // The way led back.
        if digits == given {
            let others = ["1", "2"].map(|digit| first.replacen('0', digit, 1));
            digits = others.into_iter().find(|other| other != given).unwrap_or_default();
        }
        format!("{digits}{exponent}").parse().unwrap_or_else(|_| Number::from(0))
    }

    fn string(&self, text: &str, treatment: Treatment, outer: bool) -> String {
        if text.trim().is_empty() {
            return text.to_owned();
        }
        if outer
            && text.trim_start().starts_with(['{', '['])
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            return self.json(&value, treatment, false).to_string();
        }
        match treatment {
            Treatment::Vocabulary if matches!(text, "0" | "1") => text.to_owned(),
            Treatment::Vocabulary => self.kept_words(text, Kept::Urns, is_word),
            Treatment::Status if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) => text.to_owned(),
            Treatment::Version => self.kept_words(text, Kept::Headers, is_word),
            // Times of the server are of nobody.
            Treatment::ServerTime if text.parse::<Timestamp>().is_ok() => text.to_owned(),
            Treatment::Cursor if is_cursor(text) => text.to_owned(),
            Treatment::Expression => self.expression(text),
            Treatment::Reference => self.reference(text),
            Treatment::Binary => self.binary(text),
            Treatment::Secret => SECRET.to_owned(),
            Treatment::Prose => String::new(),
            Treatment::Count if text.len() <= 5 && text.parse::<i64>().is_ok() => text.to_owned(),
            Treatment::Status | Treatment::ServerTime | Treatment::Cursor | Treatment::Count | Treatment::Personal => {
                self.personal(text)
            }
        }
    }

    /// Text of which every word is replaced, except for UUIDs and references to operations of a bulk request.
    fn personal(&self, text: &str) -> String {
        let (reference, text) = text.strip_prefix("bulkId:").map_or(("", text), |rest| ("bulkId:", rest));
        let replaced = time::other_text(&self.words, text);
        let replaced = replaced.unwrap_or_else(|| self.kept_words(text, Kept::Uuids, |_| false));
        format!("{reference}{replaced}")
    }

    fn reference(&self, text: &str) -> String {
        match text.strip_prefix(&self.base.0) {
            Some(rest) => format!("{}{}", self.base.1, self.kept_words(rest, Kept::Urns, is_word)),
            None => self.kept_words(text, Kept::Uuids, is_word),
        }
    }

    /// Base64 of other bytes, as many as before.
    fn binary(&self, text: &str) -> String {
        let Ok(bytes) = STANDARD.decode(text.trim()) else { return self.personal(text) };
        let given: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
        let others = self.words.stream(b'b', &given, bytes.len().div_ceil(4));
        STANDARD.encode(others.into_iter().flat_map(u32::to_be_bytes).take(bytes.len()).collect::<Vec<u8>>())
    }

    /// Replaces the words that are not kept, except in texts of a form that is.
    fn kept_words(&self, text: &str, form: Kept, keeps: impl Fn(&str) -> bool) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut end = 0;
        let found = form.pattern().map(|pattern| pattern.find_iter(text));
        for kept in found.into_iter().flatten().filter(|found| form.holds(found.as_str())) {
            self.replace_words(&text[end..kept.start()], &keeps, &mut replaced);
            replaced.push_str(kept.as_str());
            end = kept.end();
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
            replaced.push_str(&self.kept_words(&text[end..quoted.start()], Kept::Urns, is_word));
            replaced.push_str(&self.literal(&found, quoted.as_str()));
            end = quoted.end();
        }
        replaced.push_str(&self.kept_words(&text[end..], Kept::Urns, is_word));
        replaced
    }

    fn literal(&self, found: &Captures<'_>, quoted: &str) -> String {
        let Ok(text) = serde_json::from_str::<String>(quoted) else {
            return self.kept_words(quoted, Kept::Uuids, |_| false);
        };
        let name = found.get(1).map_or("", |name| name.as_str());
        if name.to_ascii_lowercase().contains("meta.") && text.parse::<Timestamp>().is_ok() {
            return quoted.to_owned();
        }
        Value::String(self.string(&text, kind_of(name), true)).to_string()
    }
}

impl Treatment {
    /// True for a number of the protocol.
    fn keeps(self, number: &Number) -> bool {
        let below = match self {
            Self::Count => 1_000_000,
            Self::Status => 600,
            Self::Vocabulary => 2,
            Self::Version
            | Self::ServerTime
            | Self::Cursor
            | Self::Expression
            | Self::Reference
            | Self::Binary
            | Self::Secret
            | Self::Prose
            | Self::Personal => 0,
        };
        number.as_u64().is_some_and(|number| number < below)
    }
}

/// Forms of text with digits that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Uuids,
    /// UUIDs, and versions in URNs.
    Urns,
    /// UUIDs, versions of resources and of known clients, and parameters of media types.
    Headers,
}

impl Kept {
    fn pattern(self) -> Option<&'static Regex> {
        const UUID: &str = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
        static UUIDS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(UUID).ok());
        static URNS: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(&format!("{UUID}|:[0-9]{{1,2}}[.][0-9]{{1,2}}:")).ok());
        static HEADERS: LazyLock<Option<Regex>> = LazyLock::new(|| {
            let product = r"\b[A-Za-z]+[ /]v?[0-9]{1,2}(?:\.[0-9]{1,2}){1,2}(?:$|[\s;,)])";
            let media = r"\b(?i:utf)-8\b|;\s*q=[01](?:\.[0-9]{1,3})?";
            Regex::new(&format!(r#"{UUID}|(?:W/)?"[0-9]{{1,5}}"|{product}|{media}"#)).ok()
        });
        match self {
            Self::Nothing => None,
            Self::Uuids => UUIDS.as_ref(),
            Self::Urns => URNS.as_ref(),
            Self::Headers => HEADERS.as_ref(),
        }
    }

    /// Whether a text that the pattern found stays: of products only known ones.
    fn holds(self, found: &str) -> bool {
        let name = found.split([' ', '/']).next().unwrap_or_default();
        let is_product = name.len() < found.len() && !found.starts_with(';') && !found.ends_with('"');
        self != Self::Headers || !is_product || is_word(name) || is_client(name)
    }
}

fn is_flag_of_entra(word: &str) -> bool {
    word.eq_ignore_ascii_case("aadOptscim062020") || word.eq_ignore_ascii_case("AzureAdScimPatch062020")
}

/// True for what has the form of a cursor of this server: a kind, then a place and a time that are no letters.
fn is_cursor(text: &str) -> bool {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let small = |bytes: &[u8], from: usize| bytes[from..from + 3] == [0; 3];
    text.len() == 34
        && URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|bytes| bytes.len() == 25 && matches!(bytes[0], 1 | 2) && small(&bytes, 1) && small(&bytes, 9))
}

#[cfg(test)]
mod tests;
