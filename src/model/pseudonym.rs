//! Pseudonyms of people, used instead of addresses wherever everybody may read.
//!
//! A person whom the directory knows is shown as the SCIM id. Any other person is shown as the domain and a digest of
//! the address. The key of the digest belongs to the store, so that a person has the same pseudonym everywhere and
//! nobody without the key can test addresses. Service accounts, groups, `allUsers` and the like are not people and keep
//! their names.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use ring::hmac;

use super::UserId;

/// The length of the key, in bytes.
pub(crate) const KEY_BYTES: usize = 32;
/// Number of bytes of the digest that are shown.
const SHOWN: usize = 8;

/// Replaces the names of people. The key never leaves this value.
#[derive(Clone)]
pub(crate) struct Pseudonyms(hmac::Key);

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms")
    }
}

impl Pseudonyms {
    /// Pseudonyms under this key.
    #[must_use]
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The pseudonym of an address: `example.com#1f2e3d4c5b6a7988`. Letter case does not matter.
    #[must_use]
    pub(crate) fn address(&self, address: &str) -> String {
        let folded = address.to_lowercase();
        let domain = folded.rsplit_once('@').map_or("", |(_, domain)| domain);
        let tag = hmac::sign(&self.0, folded.as_bytes());
        let mut shown = format!("{domain}#");
        for byte in &tag.as_ref()[..SHOWN] {
            // Writing into a String does not fail.
            let _ = write!(shown, "{byte:02x}");
        }
        shown
    }

    /// The pseudonym of a member of a policy. `id`: the person, where the directory or a claim knows it.
    ///
    /// `user:ADDRESS` becomes `user:ID` or `user:DOMAIN#DIGEST`, also after `deleted:`; the subject of a workforce pool
    /// likewise.
    #[must_use]
    pub(crate) fn member(&self, member: &str, id: Option<UserId>) -> String {
        let (deleted, rest) = match member.strip_prefix("deleted:") {
            Some(rest) => ("deleted:", rest),
            None => ("", member),
        };
        let person = |address: &str| id.map_or_else(|| self.address(address), |id| id.to_string());
        if let Some(address) = rest.strip_prefix("user:") {
            let (address, query) = address.split_once('?').map_or((address, None), |(a, q)| (a, Some(q)));
            let query = query.map_or_else(String::new, |query| format!("?{query}"));
            return format!("{deleted}user:{}{query}", person(address));
        }
        if rest.starts_with("principal://")
            && rest.contains("/workforcePools/")
            && let Some((pool, subject)) = rest.split_once("/subject/")
        {
            return format!("{deleted}{pool}/subject/{}", person(subject));
        }
        self.text(member).into_owned()
    }

    /// Replaces each address of a person in a text, such as an error of Google or a log line. Addresses of service
    /// accounts and groups stay.
    #[must_use]
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.text_with(text, |_| None)
    }

    /// Like [`Self::text`], but uses the ids of known people.
    #[must_use]
    pub(crate) fn text_with<'a>(&self, text: &'a str, known: impl Fn(&str) -> Option<UserId>) -> Cow<'a, str> {
        let mut shown = String::new();
        let mut rest = 0;
        let mut from = 0;
        while let Some((at, end)) = next_at(text, from) {
            from = end;
            let Some(found) = around(text, rest, at, end) else { continue };
            from = found.end;
            if found.is_no_person(text) {
                continue;
            }
            let address = format!("{}@{}", &text[found.start..at], &text[end..found.end]);
            shown.push_str(&text[rest..found.start]);
            match known(&address) {
                Some(id) => shown.push_str(&id.to_string()),
                None => shown.push_str(&self.address(&address)),
            }
            rest = found.end;
        }
        if rest == 0 {
            return Cow::Borrowed(text);
        }
        shown.push_str(&text[rest..]);
        Cow::Owned(shown)
    }
}

/// Finds the next `@`, also when percent-encoded as in a URL, and returns where it begins and ends.
fn next_at(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    let plain = rest.find('@').map(|at| (from + at, from + at + 1));
    let escaped = rest.find("%40").map(|at| (from + at, from + at + 3));
    [plain, escaped].into_iter().flatten().min()
}

/// Where an address begins and ends.
struct Found {
    start: usize,
    end: usize,
}

/// The address around an `@` between `at` and `end`, none of it before `limit`.
fn around(text: &str, limit: usize, at: usize, end: usize) -> Option<Found> {
    let domain = text[end..].find(|c: char| !(c.is_alphanumeric() || ".-@".contains(c))).unwrap_or(text.len() - end);
    let domain = text[end..end + domain].trim_end_matches(['.', '-', '@']);
    let before = &text[limit..at];
    let start = match before.strip_suffix('"') {
        // A quoted local part may contain any character.
        Some(quoted) => quoted.rfind('"')?,
        None => before.rfind(ends_local_part).map_or(0, |found| found + width(before, found)),
    };
    let start = start + before[start..].len() - before[start..].trim_start_matches(['\'', '.', '!']).len();
    // Colors of a terminal log: `ESC [ 0 m` may stand directly before a value.
    let colour = if before[..start].ends_with("\u{1b}[") { before[start..].find('m').map_or(0, |m| m + 1) } else { 0 };
    let start = start + colour;
    // A number after the `@` is a generation, as in `NAMESPACE/NAME@7`.
    let is_number = domain.bytes().all(|byte| byte.is_ascii_digit());
    (limit + start < at && !is_number).then_some(Found { start: limit + start, end: end + domain.len() })
}

/// True for a character that delimits an address and does not occur in real ones.
fn ends_local_part(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"`()[]{}<>,;:|/\\=&?@".contains(c)
}

fn width(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

impl Found {
    /// True for the address of a service account or of a group.
    fn is_no_person(&self, text: &str) -> bool {
        let address = text[self.start..self.end].to_ascii_lowercase();
        let before = text[..self.start].to_ascii_lowercase();
        address.ends_with("gserviceaccount.com")
            || ["serviceaccount:", "group:", "group `"].iter().any(|kind| before.ends_with(kind))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn pseudonyms() -> Pseudonyms {
        Pseudonyms::new(&[7; KEY_BYTES])
    }

    #[test]
    fn a_person_is_shown_by_id_or_by_domain_and_digest() {
        let (names, id) = (pseudonyms(), UserId(Uuid::from_u128(5)));
        let bob = names.member("user:bob@example.com", None);
        assert!(bob.starts_with("user:example.com#") && bob.len() == "user:example.com#".len() + 16, "{bob}");
        assert_eq!(names.member("user:Bob@EXAMPLE.com", None), bob, "letter case is no other person");
        assert_ne!(names.member("user:rob@example.com", None), bob);
        assert_ne!(Pseudonyms::new(&[8; KEY_BYTES]).member("user:bob@example.com", None), bob, "another installation");
        assert_eq!(names.member("user:bob@example.com", Some(id)), format!("user:{id}"));
        let swept = names.member("deleted:user:bob@example.com?uid=123", None);
        assert_eq!(swept, format!("deleted:{bob}?uid=123"));
        let pool = "principal://iam.googleapis.com/locations/global/workforcePools/corp/subject/";
        assert!(!names.member(&format!("{pool}00u1bob"), None).contains("00u1bob"));
    }

    #[test]
    fn who_is_no_person_keeps_the_name() {
        for member in [
            "serviceAccount:ci@shop.iam.gserviceaccount.com",
            "deleted:serviceAccount:ci@shop.iam.gserviceaccount.com?uid=1",
            "group:team@example.com",
            "domain:example.com",
            "allUsers",
            "projectOwner:shop",
            "principalSet://iam.googleapis.com/locations/global/workforcePools/corp/group/team",
        ] {
            assert_eq!(pseudonyms().member(member, None), member);
        }
        let text = "group `team@example.com` of okta; mapping:checkout/team@7 as ci@shop.iam.gserviceaccount.com";
        assert_eq!(pseudonyms().text(text), text);
    }

    #[test]
    fn names_are_replaced_in_a_text_and_the_rest_is_kept() {
        let names = pseudonyms();
        let bob = names.address("bob@example.com");
        for (text, expected) in [
            ("User bob@example.com does not exist.", format!("User {bob} does not exist.")),
            ("(user:Bob@example.com), x", format!("(user:{bob}), x")),
            ("\"user:bob@example.com\\n\"", format!("\"user:{bob}\\n\"")),
            ("<bob@example.com>", format!("<{bob}>")),
            ("GET /Users?filter=bob%40example.com&x", format!("GET /Users?filter={bob}&x")),
            ("'bob@example.com' bob@example.com", format!("'{bob}' {bob}")),
            ("\u{1b}[3mwho\u{1b}[0m=\u{1b}[0mbob@example.com", format!("\u{1b}[3mwho\u{1b}[0m=\u{1b}[0m{bob}")),
            ("a@b@example.com", names.address("a@b@example.com")),
            ("@ no address @here", "@ no address @here".to_owned()),
        ] {
            assert_eq!(names.text(text), expected);
        }
        assert!(!names.text("\"john doe\"@example.com left").contains("john"));
        let id = UserId(Uuid::from_u128(5));
        let known = |address: &str| (address == "bob@example.com").then_some(id);
        assert_eq!(
            names.text_with("bob@example.com, eve@example.com", known),
            format!("{id}, {}", names.address("eve@example.com"))
        );
    }

    proptest! {
        #[test]
        fn no_address_survives_in_any_text(
            before in "\\PC{0,12}",
            after in "\\PC{0,12}",
            local in "[a-z0-9!#$*+^_{}~'.-]{0,8}[a-z0-9]",
            domain in "[a-z][a-z0-9]{0,6}([.][a-z]{2,4}){0,2}",
        ) {
            let address = format!("{local}@{domain}");
            let text = format!("{before} {address} {after}");
            let shown = pseudonyms().text(&text).into_owned();
            prop_assert!(!shown.contains(&address), "{} → {}", text, shown);
            prop_assert_eq!(pseudonyms().text(&shown), shown.clone(), "what is shown once is shown so again");
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", pseudonyms()), "Pseudonyms");
    }
}
