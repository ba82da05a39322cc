//! Comparison of texts without regard to case, and of names by their Unicode form.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;

/// Text folded for comparison without regard to case.
#[must_use]
pub(crate) fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// The name of a user or group, folded for comparison (RFC 7644 §5): the mappings of the PRECIS profile
/// `UsernameCaseMapped` (RFC 8265 §3.3), which are those of width and case, then NFC. Nothing is refused.
#[must_use]
pub(crate) fn fold_name(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut mapped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // The ideographic space, and the block of halfwidth and fullwidth forms.
            '\u{3000}' | '\u{FF01}'..='\u{FFEE}' => mapped.extend(std::iter::once(character).nfkd()),
            other => mapped.push(other),
        }
    }
    let composed: String = mapped.nfc().collect();
    composed.to_lowercase().nfc().collect()
}

/// True when nothing of a text can be seen: only white space, controls and characters without width.
#[must_use]
pub(crate) fn is_blank(text: &str) -> bool {
    static VISIBLE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[^\p{White_Space}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]").ok());
    VISIBLE.as_ref().map_or_else(|| text.trim().is_empty(), |visible| !visible.is_match(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_differ_in_width_case_or_form_are_equal() {
        for alike in [
            &["Amélie", "AME\u{301}LIE", "ame\u{301}lie", "amélie"][..],
            &["ａｌｉｃｅ＠ｘ．example", "alice@x.example", "ＡLICE@X．ＥXAMPLE"],
            &["ｶﾞ", "ガ", "カ\u{3099}"],
            &["a\u{3000}b", "A b"],
            &["Å", "\u{212B}", "A\u{30A}", "å"],
        ] {
            for name in alike {
                assert_eq!(fold_name(name), fold_name(alike[0]), "{name}");
            }
        }
        for (one, other) in [("a", "b"), ("e", "é"), ("ﬁ", "fi"), ("²", "2"), ("straße", "strasse")] {
            assert_ne!(fold_name(one), fold_name(other));
        }
    }

    #[test]
    fn what_cannot_be_seen_is_blank() {
        for blank in ["", " ", "\n", "\t\r\n", "\u{200B}", "\u{FEFF}\u{2060}", "\u{A0}\u{3000}", "\u{AD}", "\u{115F}"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in ["a", " a ", "\u{200B}é", ".", "0"] {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }

    proptest! {
        #[test]
        fn a_folded_name_is_the_same_in_every_form_and_folds_to_itself(text in "\\PC{0,12}") {
            let folded = fold_name(&text);
            prop_assert_eq!(&fold_name(&text.nfc().collect::<String>()), &folded);
            prop_assert_eq!(&fold_name(&text.nfd().collect::<String>()), &folded);
            prop_assert_eq!(&fold_name(&folded), &folded);
        }
    }
}
