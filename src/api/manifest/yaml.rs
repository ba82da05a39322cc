//! Parses YAML and JSON into nodes with positions, with bounds on size, depth and aliases.
//!
//! Scalars are typed by the core schema of YAML 1.2. Scalars that `kubectl` would read differently (`yes`, `on`) are
//! refused, so that a file has the same meaning here and in a cluster.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};

use super::{MAX_DEPTH, MAX_NODES};

/// A position in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    fn of(span: Span) -> Self {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: number(span.start.line()), column: number(span.start.col() + 1) }
    }
}

/// One value with its position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
    /// Number of nodes in this value, including itself.
    size: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A null, boolean, number or string.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
    merge: bool,
}

impl Node {
    /// Converts a value that has no text, and therefore no positions.
    ///
    /// # Errors
    /// [`Unreadable`], when it is nested too deeply or has too many values.
    pub(crate) fn of_value(value: &Value) -> Result<Self, Unreadable> {
        let mut left = MAX_NODES;
        Self::of_bounded(value, MAX_DEPTH, &mut left)
    }

    fn of_bounded(value: &Value, depth: usize, left: &mut usize) -> Result<Self, Unreadable> {
        let place = Place::default();
        *left = left.checked_sub(1).ok_or_else(|| too_many(place))?;
        let before = *left;
        let deeper = || depth.checked_sub(1).ok_or_else(|| too_deep(place));
        let content = match value {
            Value::Array(items) => {
                let depth = deeper()?;
                let items = items.iter().map(|item| Self::of_bounded(item, depth, left));
                Content::List(items.collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let depth = deeper()?;
                let key = |text: &String| Key { text: text.clone(), place, merge: false };
                let fields = fields.iter().map(|(name, value)| Ok((key(name), Self::of_bounded(value, depth, left)?)));
                Content::Map(fields.collect::<Result<_, Unreadable>>()?)
            }
            scalar => Content::Scalar(scalar.clone()),
        };
        Ok(Self { place, content, size: before - *left + 1 })
    }

    /// The value of a field, if this is a map with that field.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(Value::Null))
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Content::Map(entries) => {
                let fields: Map<_, _> = entries.iter().map(|(key, node)| (key.text.clone(), node.to_value())).collect();
                Value::Object(fields)
            }
        }
    }

    /// The position of a path such as `spec.grants[0].roles[1]`, or of the longest part of it that exists.
    pub(crate) fn locate(&self, path: &str) -> Place {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
            let next = match (&node.content, part.strip_suffix(']')) {
                (Content::List(items), Some(index)) => index.parse().ok().and_then(|index: usize| items.get(index)),
                (Content::Map(_), None) => node.get(part),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }
}

/// Why a text cannot be parsed.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    pub(crate) place: Place,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// One document, and its problems that did not prevent parsing.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(crate) node: Node,
    pub(crate) problems: Vec<Unreadable>,
}

/// Parses the documents of a YAML text in order and omits empty ones. Parsing stops at the first error.
pub(super) fn documents(text: &str) -> (Vec<Document>, Option<Unreadable>) {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => builder.event(event, Place::of(span)),
            Err(error) => {
                let place = Place::of(Span::empty(*error.marker()));
                let reason = if error.info().contains("recursion limit") { "TooDeep" } else { "InvalidYaml" };
                Err(Unreadable { place, reason, message: format!("not valid YAML: {}", error.info()) })
            }
        };
        if let Err(error) = result {
            return (builder.documents, Some(error));
        }
    }
    (builder.documents, None)
}

/// Parses the single document of a JSON text. The text is validated as JSON and then parsed as YAML, which it also is,
/// to obtain positions.
pub(super) fn json_documents(text: &str) -> (Vec<Document>, Option<Unreadable>) {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let place = Place { line: number(error.line()), column: number(error.column().max(1)) };
        return (
            Vec::new(),
            Some(Unreadable { place, reason: "InvalidJson", message: format!("not valid JSON: {error}") }),
        );
    }
    // In valid JSON, tabs occur between tokens only; YAML does not accept them there.
    documents(&join_surrogates(&text.replace('\t', " ")))
}

/// JSON escapes a character beyond U+FFFF as two escapes, YAML as one.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut joined = String::with_capacity(text.len());
    let mut rest = 0;
    while let Some(found) = text[rest..].find('\\') {
        let at = rest + found;
        joined.push_str(&text[rest..at]);
        if let (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) = (unit(at), unit(at + 6)) {
            let character = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            // Writing to a String cannot fail.
            let _ = write!(joined, "\\U{character:08x}");
            rest = at + 12;
        } else {
            // The escaped character is ASCII, so two bytes are two characters.
            rest = (at + 2).min(text.len());
            joined.push_str(&text[at..rest]);
        }
    }
    joined.push_str(&text[rest..]);
    Cow::Owned(joined)
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashSet<String>, key: Option<Key> },
}

struct Frame {
    place: Place,
    anchor: usize,
    size: usize,
    open: Open,
}

#[derive(Default)]
struct Builder {
    documents: Vec<Document>,
    problems: Vec<Unreadable>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Unreadable> {
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.problems.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), place);
                let plain = style == ScalarStyle::Plain && tag.is_none();
                if self.wants_key() {
                    self.key(text.into_owned(), place, plain);
                    return Ok(());
                }
                let value = if plain { self.plain(&text, place) } else { Value::String(text.into_owned()) };
                self.add(Node { place, content: Content::Scalar(value), size: 1 }, anchor)
            }
            Event::Alias(id) => {
                let node = self.anchors.get(&id).filter(|_| !self.wants_key());
                let node = node.ok_or_else(|| error(place, "InvalidYaml", "an alias is not permitted here"))?;
                // The expansion of an alias counts in full, before it is copied.
                let nodes = self.nodes + node.size;
                within_bounds(nodes, place)?;
                let node = node.clone();
                self.nodes = nodes;
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, tag) => self.open(Open::List(Vec::new()), anchor, tag.as_deref(), place),
            Event::MappingStart(anchor, tag) => {
                let open = Open::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.open(open, anchor, tag.as_deref(), place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { open: Open::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, text: String, place: Place, plain: bool) {
        let Some(Frame { open: Open::Map { seen, key, .. }, .. }) = self.stack.last_mut() else { return };
        if !seen.insert(text.clone()) {
            let message = format!("the key `{}` stands twice", shown(&text));
            self.problems.push(error(place, "DuplicateKey", &message));
        }
        let merge = plain && text == "<<";
        *key = Some(Key { text, place, merge });
    }

    fn open(&mut self, open: Open, anchor: usize, tag: Option<&Tag>, place: Place) -> Result<(), Unreadable> {
        self.check_tag(tag, place);
        if self.wants_key() {
            return Err(error(place, "InvalidYaml", "a list or a map cannot be a key"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.stack.push(Frame { place, anchor, size: 1, open });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Unreadable> {
        let Some(Frame { place, anchor, size, open }) = self.stack.pop() else { return Ok(()) };
        let content = match open {
            Open::List(items) => Content::List(items),
            Open::Map { entries, .. } => Content::Map(merged(entries)?),
        };
        self.add(Node { place, content, size }, anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Unreadable> {
        // The value stored for an anchor is a copy too.
        self.nodes += if anchor > 0 { 1 + node.size } else { 1 };
        within_bounds(self.nodes, node.place)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            let problems = std::mem::take(&mut self.problems);
            if !node.is_null() {
                self.documents.push(Document { node, problems });
            }
            return Ok(());
        };
        frame.size += node.size;
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, key, .. } => entries.extend(key.take().map(|key| (key, node))),
        }
        Ok(())
    }

    fn check_tag(&mut self, tag: Option<&Tag>, place: Place) {
        let Some(tag) = tag else { return };
        let known = tag.is_yaml_core_schema() && matches!(tag.suffix.as_str(), "str" | "map" | "seq");
        if !known {
            let message = format!("the tag `{}` is not understood; remove it", shown(&tag.to_string()));
            self.problems.push(error(place, "UnknownTag", &message));
        }
    }

    fn plain(&mut self, text: &str, place: Place) -> Value {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "on" | "On" | "ON" | "off" | "Off" | "OFF" => {
                let message = format!("kubectl takes `{text}` for true or false; write \"{text}\", true or false");
                self.problems.push(error(place, "AmbiguousValue", &message));
                Value::String(text.to_owned())
            }
            _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
        }
    }
}

fn within_bounds(nodes: usize, place: Place) -> Result<(), Unreadable> {
    if nodes <= MAX_NODES { Ok(()) } else { Err(too_many(place)) }
}

fn too_many(place: Place) -> Unreadable {
    error(place, "TooManyValues", &format!("more than {MAX_NODES} values, counting the expansion of aliases"))
}

fn too_deep(place: Place) -> Unreadable {
    error(place, "TooDeep", &format!("nested deeper than {MAX_DEPTH} levels"))
}

/// Merges the entries of another map (`<<: *defaults`). Entries of the map itself take precedence.
fn merged(entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, Unreadable> {
    if !entries.iter().any(|(key, _)| key.merge) {
        return Ok(entries);
    }
    let (sources, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.merge);
    let mut seen: HashSet<String> = own.iter().map(|(key, _)| key.text.clone()).collect();
    for (_, source) in sources {
        let place = source.place;
        let maps = match source.content {
            Content::List(maps) => maps,
            _ => vec![source],
        };
        for map in maps {
            let Content::Map(more) = map.content else {
                return Err(error(place, "InvalidYaml", "`<<` takes a map or a list of maps"));
            };
            own.extend(more.into_iter().filter(|(key, _)| seen.insert(key.text.clone())));
        }
    }
    Ok(own)
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.')) {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let of_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    if !text.bytes().all(of_number) {
        return None;
    }
    text.parse::<i64>().map(Number::from).ok().or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

fn error(place: Place, reason: &'static str, message: &str) -> Unreadable {
    Unreadable { place, reason, message: message.to_owned() }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
