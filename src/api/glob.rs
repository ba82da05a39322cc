//! Patterns of resources: `services/checkout-*`, `jobs/nightly`, `workerPools/*`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::model::ResourceKind;

/// Longest pattern in bytes, as in the schema.
const MAX_LEN: usize = 80;

/// Why a text is not a pattern of resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// The collection is not one of the three.
    #[error("`{0}` is not a resource pattern: write services/NAME, jobs/NAME or workerPools/NAME")]
    UnknownCollection(String),
    /// NAME is empty, too long or has characters that are not permitted in a name.
    #[error("`{0}` is not a resource pattern: NAME has lower-case letters, digits, `-` and `*` only")]
    InvalidName(String),
}

/// A pattern of resources of one kind. `*` in the name matches any number of characters, including none; there is no
/// other wildcard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ResourcePattern {
    kind: ResourceKind,
    name: String,
}

impl ResourcePattern {
    /// Parses `services/NAME`, `jobs/NAME` or `workerPools/NAME`.
    ///
    /// # Errors
    /// [`PatternError`], which names the problem.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let shown = || text.chars().take(MAX_LEN).collect::<String>();
        let (collection, name) = text.split_once('/').ok_or_else(|| PatternError::UnknownCollection(shown()))?;
        let kind = ResourceKind::from_collection(collection).ok_or_else(|| PatternError::UnknownCollection(shown()))?;
        let well_formed = !name.is_empty()
            && text.len() <= MAX_LEN
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*');
        if well_formed { Ok(Self { kind, name: name.to_owned() }) } else { Err(PatternError::InvalidName(shown())) }
    }

    /// The kind of resource.
    #[must_use]
    pub(crate) fn kind(&self) -> ResourceKind {
        self.kind
    }

    /// The single name that it matches, if it has no wildcard.
    #[must_use]
    pub(crate) fn literal(&self) -> Option<&str> {
        if self.name.contains('*') { None } else { Some(&self.name) }
    }

    /// True when the pattern matches this resource. The cost is linear in the name for each run between wildcards;
    /// there is no backtracking over more than one wildcard.
    #[must_use]
    pub(crate) fn matches(&self, kind: ResourceKind, name: &str) -> bool {
        self.kind == kind && glob(&self.name, name)
    }
}

/// Patterns, of which one has to match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourcePatterns(Vec<ResourcePattern>);

impl ResourcePatterns {
    /// Parses patterns; a text that is none matches nothing.
    #[must_use]
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a String>) -> Self {
        Self(texts.into_iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// The kinds of resources that can match.
    #[must_use]
    pub(crate) fn kinds(&self) -> BTreeSet<ResourceKind> {
        self.0.iter().map(ResourcePattern::kind).collect()
    }

    /// True when one of the patterns matches this resource.
    #[must_use]
    pub(crate) fn matches(&self, kind: ResourceKind, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(kind, name))
    }
}

/// Greedy matching from the left. Each literal run takes its first match, which leaves the most text for the following
/// ones, so that no match has to be revised. The last run is anchored at the end.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut runs = tail.split('*').peekable();
    while let Some(run) = runs.next() {
        if runs.peek().is_none() {
            return rest.ends_with(run);
        }
        match rest.find(run) {
            Some(at) => rest = &rest[at + run.len()..],
            None => return false,
        }
    }
    true
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.collection(), self.name)
    }
}

impl fmt::Debug for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for ResourcePattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        ResourcePattern::parse(pattern).unwrap().matches(ResourceKind::Service, name)
    }

    #[test]
    fn a_pattern_without_wildcard_matches_only_itself() {
        assert!(matches("services/checkout", "checkout"));
        assert!(!matches("services/checkout", "checkout-api"));
        assert!(!matches("services/checkout", "my-checkout"));
        assert_eq!(ResourcePattern::parse("jobs/nightly").unwrap().literal(), Some("nightly"));
        assert_eq!(ResourcePattern::parse("jobs/*").unwrap().literal(), None);
    }

    #[test]
    fn a_star_matches_any_run_also_the_empty_one() {
        for name in ["checkout-", "checkout-api", "checkout-a-b"] {
            assert!(matches("services/checkout-*", name), "{name}");
        }
        assert!(!matches("services/checkout-*", "checkout"));
        assert!(matches("services/*", "anything"));
        assert!(matches("services/a*b*c", "abc"));
        assert!(matches("services/a*b*c", "a-b-b-c"));
        assert!(!matches("services/a*b*c", "acb"));
        assert!(!matches("services/ab*ba", "aba"), "head and tail do not share a character");
        assert!(matches("services/**", "x"));
    }

    #[test]
    fn a_pattern_of_one_kind_matches_no_other_kind() {
        let pattern = ResourcePattern::parse("jobs/*").unwrap();
        assert!(pattern.matches(ResourceKind::Job, "x"));
        assert!(!pattern.matches(ResourceKind::Service, "x"));
        assert!(!pattern.matches(ResourceKind::WorkerPool, "x"));
    }

    #[test]
    fn other_texts_are_no_patterns_and_the_error_says_what_to_write() {
        for text in ["", "*", "checkout", "*/checkout", "service/x", "Services/x", "projects/p/locations/l/services/x"]
        {
            let error = ResourcePattern::parse(text).unwrap_err();
            assert!(matches!(error, PatternError::UnknownCollection(_)), "{text}");
        }
        for text in ["services/", "services/a/b", "services/A", "services/a?", "services/[ab]", "services/a b"] {
            let error = ResourcePattern::parse(text).unwrap_err();
            assert!(matches!(error, PatternError::InvalidName(_)), "{text}");
        }
        assert!(ResourcePattern::parse(&format!("services/{}", "a".repeat(100))).is_err());
    }

    #[test]
    fn many_stars_are_matched_in_linear_time() {
        let pattern = ResourcePattern::parse(&format!("services/{}", "a*".repeat(35))).unwrap();
        let name = format!("{}b", "a".repeat(100_000));
        assert!(pattern.matches(ResourceKind::Service, &name));
        let pattern = ResourcePattern::parse(&format!("services/{}c", "*a".repeat(35))).unwrap();
        assert!(!pattern.matches(ResourceKind::Service, &name));
    }

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&format!("services/{pattern}"), &name), naive(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn what_is_printed_is_parsed_again(pattern in "(services|jobs|workerPools)/[a-z0-9*-]{1,60}") {
            let parsed = ResourcePattern::parse(&pattern).unwrap();
            prop_assert_eq!(parsed.to_string(), pattern);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,100}") {
            let _ = ResourcePattern::parse(&text);
        }
    }
}
