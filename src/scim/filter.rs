//! Filters as trees (RFC 7644 §3.4.2.2), which can be printed and resolved against the schemas. This is the only form
//! of a filter: the store compiles it to SQL, and a PATCH evaluates it on the elements of an attribute.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Number, Value};

use super::error::{ScimError, shown};
use super::extension::{self, Readings};
use super::member_id::issued_id;
use super::schema::{Attribute, Kind, Mutability, Resolved, ResourceType};

/// A path to an attribute: `[URN ":"] name ["." sub]`. Names are as sent until [`Filter::resolved`] replaces them with
/// the spelling of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AttributePath {
    /// The schema of the attribute, if given. After resolution: only for extensions.
    pub(crate) schema: Option<String>,
    /// The attribute.
    pub(crate) name: String,
    /// The sub-attribute. As it is parsed, it may have dots where a part of the URN has some.
    pub(crate) sub: Option<String>,
}

impl fmt::Display for AttributePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}:")?;
        }
        f.write_str(&self.name)?;
        match &self.sub {
            Some(sub) => write!(f, ".{sub}"),
            None => Ok(()),
        }
    }
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CompareOp {
    /// `eq`
    Equal,
    /// `ne`
    NotEqual,
    /// `co`
    Contains,
    /// `sw`
    StartsWith,
    /// `ew`
    EndsWith,
    /// `gt`
    Greater,
    /// `ge`
    GreaterOrEqual,
    /// `lt`
    Less,
    /// `le`
    LessOrEqual,
}

impl CompareOp {
    const ALL: [Self; 9] = [
        Self::Equal,
        Self::NotEqual,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::Less,
        Self::LessOrEqual,
    ];

    /// The two letters.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::NotEqual => "ne",
            Self::Contains => "co",
            Self::StartsWith => "sw",
            Self::EndsWith => "ew",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "ge",
            Self::Less => "lt",
            Self::LessOrEqual => "le",
        }
    }

    /// Whether it compares by equality or order, and not parts of a text.
    #[must_use]
    pub(crate) fn compares_order(self) -> bool {
        !matches!(self, Self::Contains | Self::StartsWith | Self::EndsWith)
    }

    /// Whether it holds for values in this order.
    pub(super) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Contains | Self::StartsWith | Self::EndsWith => false,
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.as_str().eq_ignore_ascii_case(word))
    }
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FilterValue {
    /// A string.
    String(String),
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// `null`.
    Null,
}

impl fmt::Display for FilterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => Value::String(text.clone()).fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A test of one attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// `pr`: it has a value that is not empty.
    Present,
    /// The comparison with the value holds.
    Compare(CompareOp, FilterValue),
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("pr"),
            Self::Compare(op, value) => write!(f, "{} {value}", op.as_str()),
        }
    }
}

/// A filter. `Display` prints text that parses to the same tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    /// Conjunction of at least two filters.
    And(Vec<Filter>),
    /// Disjunction of at least two filters.
    Or(Vec<Filter>),
    /// Negation.
    Not(Box<Filter>),
    /// A test of one attribute: `userName eq "a"`.
    Attribute(AttributePath, Test),
    /// A single element of a multi-valued attribute passes the filter, and also the test of one of its sub-attributes
    /// if there is one: `emails[type eq "work"]`, `emails[type eq "work"].value eq "a@example.com"`.
    Element {
        /// The multi-valued attribute.
        path: AttributePath,
        /// The filter for the element; its paths are those of sub-attributes.
        filter: Box<Filter>,
        /// A further test of a sub-attribute of that element.
        then: Option<(String, Test)>,
    },
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(terms) => join(f, terms, " and ", |term| matches!(term, Self::And(_) | Self::Or(_))),
            Self::Or(terms) => join(f, terms, " or ", |term| matches!(term, Self::Or(_))),
            Self::Not(inner) => write!(f, "not ({inner})"),
            Self::Attribute(path, test) => write!(f, "{path} {test}"),
            Self::Element { path, filter, then } => {
                write!(f, "{path}[{filter}]")?;
                match then {
                    Some((sub, test)) => write!(f, ".{sub} {test}"),
                    None => Ok(()),
                }
            }
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, terms: &[Filter], word: &str, grouped: fn(&Filter) -> bool) -> fmt::Result {
    for (index, term) in terms.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        if grouped(term) {
            write!(f, "({term})")?;
        } else {
            write!(f, "{term}")?;
        }
    }
    Ok(())
}

impl Filter {
    /// The same filter with the names of the schema. Attributes have the schema's spelling, and extension attributes
    /// their URN (also `manager` without one). Multi-valued complex attributes without a sub-attribute become their
    /// `value` (`members eq` → `members.value eq`). `"True"` compared with a boolean becomes `true`. Paths of extensions
    /// that no schema describes stay as they are.
    ///
    /// # Errors
    /// `invalidFilter` for an attribute that the type does not have, or a comparison that its data type does not allow.
    pub(crate) fn resolved(&self, of: ResourceType) -> Result<Self, ScimError> {
        match self {
            Self::And(terms) => Ok(Self::And(terms.iter().map(|term| term.resolved(of)).collect::<Result<_, _>>()?)),
            Self::Or(terms) => Ok(Self::Or(terms.iter().map(|term| term.resolved(of)).collect::<Result<_, _>>()?)),
            Self::Not(inner) => Ok(Self::Not(Box::new(inner.resolved(of)?))),
            Self::Attribute(path, test) => {
                let Some(found) = of.resolve(path) else {
                    Readings::of_filter(of, path).ok_or_else(|| unknown(of, path))?;
                    return Ok(Self::Attribute(path.clone(), extension::checked(test, path)?));
                };
                let (sub, leaf) = match found.sub {
                    Some(sub) => (Some(sub), sub),
                    None => match found.attribute.default_sub() {
                        Some(sub) => (Some(sub), sub),
                        None => (None, found.attribute),
                    },
                };
                Ok(Self::Attribute(canonical_path(&found, sub), checked(test, leaf, path)?))
            }
            Self::Element { path, filter, then } => {
                let Some(found) = of.resolve(path) else {
                    Readings::of_filter(of, path).ok_or_else(|| unknown(of, path))?;
                    extension::checked_inside(filter)?;
                    if let Some((_, test)) = then {
                        extension::checked(test, path)?;
                    }
                    return Ok(self.clone());
                };
                if found.sub.is_some() || found.attribute.kind != Kind::Complex {
                    return Err(ScimError::InvalidFilter(format!(
                        "`{}` has no elements to filter",
                        shown(&path.to_string())
                    )));
                }
                let filter = Box::new(filter.resolved_in(found.attribute)?);
                let then = match then {
                    Some((sub, test)) => {
                        let sub = found.attribute.sub(sub).ok_or_else(|| unknown_sub(found.attribute, sub))?;
                        Some((sub.name.to_owned(), checked(test, sub, path)?))
                    }
                    None => None,
                };
                Ok(Self::Element { path: canonical_path(&found, None), filter, then })
            }
        }
    }

    /// [`Filter::resolved`] for a filter in brackets after a complex attribute.
    pub(super) fn resolved_in(&self, attribute: &Attribute) -> Result<Self, ScimError> {
        match self {
            Self::And(terms) => {
                Ok(Self::And(terms.iter().map(|term| term.resolved_in(attribute)).collect::<Result<_, _>>()?))
            }
            Self::Or(terms) => {
                Ok(Self::Or(terms.iter().map(|term| term.resolved_in(attribute)).collect::<Result<_, _>>()?))
            }
            Self::Not(inner) => Ok(Self::Not(Box::new(inner.resolved_in(attribute)?))),
            Self::Attribute(path, test) if path.schema.is_none() && path.sub.is_none() => {
                let sub = attribute.sub(&path.name).ok_or_else(|| unknown_sub(attribute, &path.name))?;
                let path = AttributePath { schema: None, name: sub.name.to_owned(), sub: None };
                let test = checked(test, sub, &path)?;
                Ok(Self::Attribute(path, test))
            }
            Self::Attribute(path, _) | Self::Element { path, .. } => Err(unknown_sub(attribute, &path.to_string())),
        }
    }
}

/// A time as text: RFC 3339, or without an offset, which then is UTC.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(local)
}

fn canonical_path(found: &Resolved, sub: Option<&Attribute>) -> AttributePath {
    AttributePath {
        schema: found.extension.map(str::to_owned),
        name: found.attribute.name.to_owned(),
        sub: sub.map(|sub| sub.name.to_owned()),
    }
}

fn unknown(of: ResourceType, path: &AttributePath) -> ScimError {
    let hint = match path.name.to_ascii_lowercase().as_str() {
        "email" => "; did you mean `emails.value`?",
        "username" | "login" | "user" => "; did you mean `userName`?",
        "name" | "group" | "displayname" => "; did you mean `displayName`?",
        _ => "; `/Schemas` lists what there is",
    };
    ScimError::InvalidFilter(format!("{} has no attribute `{}`{hint}", of.name(), shown(&path.to_string())))
}

fn unknown_sub(attribute: &Attribute, sub: &str) -> ScimError {
    ScimError::InvalidFilter(format!("`{}` has no sub-attribute `{}`", attribute.name, shown(sub)))
}

/// True for an attribute that has ids of this server: `id` and `members.value`, and the like.
fn is_id(attribute: &Attribute) -> bool {
    attribute.mutability != Mutability::ReadWrite && matches!(attribute.name, "id" | "value")
}

/// Checks that an attribute of this data type permits the test, and turns `"True"` into a boolean where one is
/// expected.
fn checked(test: &Test, attribute: &Attribute, path: &AttributePath) -> Result<Test, ScimError> {
    let Test::Compare(op, value) = test else { return Ok(Test::Present) };
    let refuse = |what: &str| Err(ScimError::InvalidFilter(format!("`{}` {what}", shown(&path.to_string()))));
    if matches!(value, FilterValue::Null) {
        return match op {
            CompareOp::Equal | CompareOp::NotEqual => Ok(test.clone()),
            _ => refuse("can be compared with null by `eq` and `ne` only"),
        };
    }
    match attribute.kind {
        Kind::Complex => refuse("is complex; name one of its sub-attributes"),
        Kind::Boolean => {
            let value = match value {
                FilterValue::Bool(value) => *value,
                FilterValue::String(word) if word.eq_ignore_ascii_case("true") => true,
                FilterValue::String(word) if word.eq_ignore_ascii_case("false") => false,
                _ => return refuse("is a boolean; compare it with true or false"),
            };
            match op {
                CompareOp::Equal | CompareOp::NotEqual => Ok(Test::Compare(*op, FilterValue::Bool(value))),
                _ => refuse("is a boolean; compare it by `eq` or `ne`"),
            }
        }
        Kind::Integer | Kind::Decimal => match value {
            FilterValue::Number(_) if op.compares_order() => Ok(test.clone()),
            _ => refuse("is a number; compare it with one, without quotation marks"),
        },
        Kind::DateTime => match value {
            FilterValue::String(wanted) if !op.compares_order() || time(wanted).is_some() => Ok(test.clone()),
            _ => refuse("is a time; compare it with one such as \"2026-01-31T12:00:00Z\""),
        },
        // The ids of this server are compared in the spelling in which it issues them.
        Kind::String if attribute.case_exact && is_id(attribute) => match value {
            FilterValue::String(wanted) => {
                let id = issued_id(wanted).map_or_else(|| wanted.clone(), |id| id.to_string());
                Ok(Test::Compare(*op, FilterValue::String(id)))
            }
            _ => refuse("is a string; put the value into quotation marks"),
        },
        Kind::String | Kind::Reference | Kind::Binary => match value {
            FilterValue::String(_) => Ok(test.clone()),
            _ => refuse("is a string; put the value into quotation marks"),
        },
    }
}
