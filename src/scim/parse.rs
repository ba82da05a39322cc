//! Recursive-descent parser for filters and PATCH paths (RFC 7644 §3.4.2.2, §3.5.2), with bounds.
//!
//! It accepts more than the RFC: `emails[type eq "work"].value eq "x"`, values without quotation marks (noted as a
//! finding), and no space before a quoted value. The parser never looks up a name; [`Filter::resolved`] does.

use std::fmt;

use serde_json::Number;

use super::error::{ScimError, shown};
use super::filter::{AttributePath, CompareOp, Filter, FilterValue, Test};
use super::finding::{FindingCode, Findings};

/// Longest filter or path, in bytes.
pub(crate) const MAX_LENGTH: usize = 4096;
/// Largest number of comparisons in one filter.
pub(crate) const MAX_TERMS: usize = 64;
/// Deepest nesting of parentheses and brackets.
pub(crate) const MAX_NESTING: usize = 32;

/// A PATCH path: `attribute`, `attribute.sub`, `attribute[filter]` or `attribute[filter].sub`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PatchPath {
    /// The attribute; its `sub` is empty where there is a filter.
    pub(crate) attribute: AttributePath,
    /// The filter that selects elements of a multi-valued attribute.
    pub(crate) filter: Option<Filter>,
    /// The sub-attribute of those elements.
    pub(crate) sub: Option<String>,
}

impl fmt::Display for PatchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.attribute)?;
        if let Some(filter) = &self.filter {
            write!(f, "[{filter}]")?;
        }
        match &self.sub {
            Some(sub) => write!(f, ".{sub}"),
            None => Ok(()),
        }
    }
}

/// Parses a filter that has been percent-decoded.
///
/// # Errors
/// `invalidFilter`, with the byte offset of the error.
pub(crate) fn filter(text: &str, findings: &mut Findings) -> Result<Filter, ScimError> {
    let mut parser = Parser::new(text, findings).map_err(ScimError::InvalidFilter)?;
    let filter = parser.whole(Parser::or).map_err(ScimError::InvalidFilter)?;
    findings.refuse_deviations()?;
    Ok(filter)
}

/// Parses a PATCH path.
///
/// # Errors
/// `invalidPath`, with the byte offset of the error.
pub(crate) fn patch_path(text: &str, findings: &mut Findings) -> Result<PatchPath, ScimError> {
    let mut parser = Parser::new(text, findings).map_err(ScimError::InvalidPath)?;
    parser.whole(Parser::patch_path).map_err(ScimError::InvalidPath)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nesting: usize,
    terms: usize,
    findings: &'a mut Findings,
}

type Parsed<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn new(text: &'a str, findings: &'a mut Findings) -> Parsed<Self> {
        if text.len() > MAX_LENGTH {
            return Err(format!("the expression has {} bytes; at most {MAX_LENGTH} are read", text.len()));
        }
        Ok(Self { text, at: 0, nesting: 0, terms: 0, findings })
    }

    fn whole<T>(&mut self, rule: fn(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.spaces();
        let result = rule(self)?;
        self.spaces();
        if self.at == self.text.len() { Ok(result) } else { Err(self.expected("the end")) }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn expected(&self, what: &str) -> String {
        match self.rest() {
            "" => format!("expected {what} at byte {}, where the expression ends", self.at),
            rest => format!("expected {what} at byte {}, found `{}`", self.at, shown(rest)),
        }
    }

    fn enter(&mut self) -> Parsed<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(format!("the expression is nested deeper than {MAX_NESTING} at byte {}", self.at));
        }
        Ok(())
    }

    fn close(&mut self, byte: u8, what: &str) -> Parsed<()> {
        self.spaces();
        if !self.eat(byte) {
            return Err(self.expected(what));
        }
        self.nesting -= 1;
        Ok(())
    }

    /// Consumes `word` in any case if it is the next whole word, and the spaces after it.
    fn keyword(&mut self, word: &str) -> bool {
        let Some(head) = self.rest().get(..word.len()) else { return false };
        let after = self.text.as_bytes().get(self.at + word.len());
        let ends = after.is_none_or(|byte| matches!(byte, b' ' | b'('));
        if !head.eq_ignore_ascii_case(word) || !ends {
            return false;
        }
        self.at += word.len();
        self.spaces();
        true
    }

    fn or(&mut self) -> Parsed<Filter> {
        self.chain("or", Self::and, Filter::Or)
    }

    fn and(&mut self) -> Parsed<Filter> {
        self.chain("and", Self::term, Filter::And)
    }

    fn chain(
        &mut self,
        word: &str,
        rule: fn(&mut Self) -> Parsed<Filter>,
        join: fn(Vec<Filter>) -> Filter,
    ) -> Parsed<Filter> {
        let first = rule(self)?;
        let mut others = Vec::new();
        loop {
            let before = self.at;
            self.spaces();
            if !self.keyword(word) {
                self.at = before;
                break;
            }
            others.push(rule(self)?);
        }
        if others.is_empty() {
            return Ok(first);
        }
        others.insert(0, first);
        Ok(join(others))
    }

    fn term(&mut self) -> Parsed<Filter> {
        let before = self.at;
        if self.keyword("not") {
            if self.peek() == Some(b'(') {
                return Ok(Filter::Not(Box::new(self.group()?)));
            }
            self.at = before;
        }
        if self.peek() == Some(b'(') {
            return self.group();
        }
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(format!("the expression has more than {MAX_TERMS} terms"));
        }
        let path = self.path()?;
        if self.peek() == Some(b'[') {
            let filter = Box::new(self.brackets()?);
            let then = if self.eat(b'.') {
                let sub = self.name("a sub-attribute")?;
                let test = self.test(&sub)?;
                Some((sub, test))
            } else {
                None
            };
            return Ok(Filter::Element { path, filter, then });
        }
        let test = self.test(&path.name)?;
        Ok(Filter::Attribute(path, test))
    }

    fn group(&mut self) -> Parsed<Filter> {
        self.enter()?;
        self.at += 1;
        self.spaces();
        let inner = self.or()?;
        self.close(b')', "`)`")?;
        Ok(inner)
    }

    fn brackets(&mut self) -> Parsed<Filter> {
        self.enter()?;
        self.at += 1;
        self.spaces();
        let inner = self.or()?;
        self.close(b']', "`]`")?;
        Ok(inner)
    }

    fn patch_path(&mut self) -> Parsed<PatchPath> {
        let attribute = self.path()?;
        if self.peek() != Some(b'[') {
            return Ok(PatchPath { attribute, filter: None, sub: None });
        }
        let filter = Some(self.brackets()?);
        let sub = if self.eat(b'.') { Some(self.name("a sub-attribute")?) } else { None };
        Ok(PatchPath { attribute, filter, sub })
    }

    fn path(&mut self) -> Parsed<AttributePath> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$' | b':' | b'.'))
            .count();
        let (schema, start) = match rest[..length].rfind(':') {
            Some(0) => return Err(self.expected("an attribute name")),
            Some(colon) => (Some(rest[..colon].to_owned()), colon + 1),
            None => (None, 0),
        };
        if schema.as_deref().is_some_and(|schema| !is_urn(schema)) {
            return Err(self.expected("an attribute name or a URN"));
        }
        self.at += start;
        let name = self.name("an attribute name")?;
        let mut sub = if self.eat(b'.') { Some(self.name("a sub-attribute")?) } else { None };
        // More names behind the last colon: some of them belong to the URN, such as those of a version. Only the known
        // schemas say which.
        if let (Some(_), Some(sub)) = (&schema, &mut sub) {
            while self.eat(b'.') {
                sub.push('.');
                sub.push_str(&self.name("a sub-attribute")?);
            }
        }
        Ok(AttributePath { schema, name, sub })
    }

    fn name(&mut self, what: &str) -> Parsed<String> {
        let rest = self.rest().as_bytes();
        let first = rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'_'));
        if !first {
            return Err(self.expected(what));
        }
        let length = 1 + rest[1..]
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$'))
            .count();
        let name = self.rest()[..length].to_owned();
        self.at += length;
        Ok(name)
    }

    fn test(&mut self, pointer: &str) -> Parsed<Test> {
        if !self.eat(b' ') {
            return Err(self.expected("a space and an operator"));
        }
        self.spaces();
        let length = self.rest().bytes().take_while(u8::is_ascii_alphabetic).count();
        let word = &self.rest()[..length];
        if word.eq_ignore_ascii_case("pr") {
            self.at += length;
            return Ok(Test::Present);
        }
        let Some(op) = CompareOp::from_word(word) else {
            return Err(self.expected("one of eq ne co sw ew gt ge lt le pr"));
        };
        self.at += length;
        if self.peek() != Some(b'"') && !self.eat(b' ') {
            return Err(self.expected("a space and a value"));
        }
        self.spaces();
        Ok(Test::Compare(op, self.value(pointer)?))
    }

    fn value(&mut self, pointer: &str) -> Parsed<FilterValue> {
        if self.peek() == Some(b'"') {
            return self.string();
        }
        let length = self.rest().bytes().take_while(|byte| !matches!(byte, b' ' | b')' | b']')).count();
        let word = &self.rest()[..length];
        if word.is_empty() {
            return Err(self.expected("a value"));
        }
        // Taken as a text, it would find nothing, and the client would create what exists already.
        if word.starts_with(['\'', '`', '´', '‘', '’', '‚', '‛', '“', '”', '„', '‟', '«', '»', '‹', '›'])
        {
            return Err(format!("{}: only `\"` begins a string", self.expected("a value in double quotation marks")));
        }
        if word.contains(['"', '(', '[']) {
            return Err(self.expected("a value in quotation marks"));
        }
        let value = if word.eq_ignore_ascii_case("true") {
            FilterValue::Bool(true)
        } else if word.eq_ignore_ascii_case("false") {
            FilterValue::Bool(false)
        } else if word.eq_ignore_ascii_case("null") {
            FilterValue::Null
        } else if let Some(number) = number(word) {
            FilterValue::Number(number)
        } else {
            self.findings.note(FindingCode::FilterValueNotQuoted, pointer);
            FilterValue::String(word.to_owned())
        };
        self.at += length;
        Ok(value)
    }

    fn string(&mut self) -> Parsed<FilterValue> {
        let rest = self.rest();
        let mut escaped = false;
        for (index, byte) in rest.bytes().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let text = serde_json::from_str(&rest[..=index])
                        .map_err(|_| self.expected("a string with the escapes of JSON"))?;
                    self.at += index + 1;
                    return Ok(FilterValue::String(text));
                }
                _ => {}
            }
        }
        Err(format!("the string that begins at byte {} has no closing quotation mark", self.at))
    }
}

/// True for a text that may come before the last colon of a path.
pub(super) fn is_urn(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.eq_ignore_ascii_case("urn")
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
    })
}

/// A number in JSON notation, read exactly: its printed form reads as the same number.
fn number(word: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(word).ok()?;
    if number.is_f64() { word.parse().ok().and_then(Number::from_f64) } else { Some(number) }
}
