//! The words of SCIM, and what the attributes of requests hold.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::super::schema::{Attribute, ENTERPRISE_ATTRIBUTES, GROUP_ATTRIBUTES, Kind, USER_ATTRIBUTES};
use super::Treatment;

/// Words of the protocol and of URNs, and names of attributes that clients send though no schema has them.
const WORDS: &str = "urn ietf params scim schemas schema core extension enterprise api messages patchop bulkrequest bulkresponse \
    listresponse searchrequest error user group users groups serviceproviderconfig resourcetype resourcetypes bulk me search idp v2 \
    add replace remove eq ne co sw ew pr gt ge lt le and or not true false null \
    operations op path value resources totalresults startindex itemsperpage count filter sortby sortorder ascending descending \
    attributes excludedattributes cursor nextcursor previouscursor failonerrors method bulkid data version location status response \
    detail scimtype post put patch delete get w id externalid meta created lastmodified ref display direct indirect \
    invalidfilter invalidsyntax invalidpath invalidvalue notarget uniqueness mutability toomany invalidcursor expiredcursor \
    invalidcount sensitive invalidvers work home other mobile fax pager aim gtalk icq xmpp skype qq msn yahoo photo thumbnail \
    email mail emailaddress phone phonenumber mobilephone telephonenumber members member username login upn userprincipalname \
    firstname lastname surname fullname groupname first last enabled disabled accountenabled objectid http https rolecall invalid";

/// Names of parameters and of attributes of messages, with the treatment of their values.
const MESSAGES: [(&str, Treatment); 31] = [
    ("schemas", Treatment::Vocabulary),
    ("op", Treatment::Vocabulary),
    ("method", Treatment::Vocabulary),
    ("resourcetype", Treatment::Vocabulary),
    ("type", Treatment::Vocabulary),
    ("status", Treatment::Status),
    ("scimtype", Treatment::Vocabulary),
    ("sortorder", Treatment::Vocabulary),
    ("version", Treatment::Version),
    ("created", Treatment::ServerTime),
    ("lastmodified", Treatment::ServerTime),
    ("cursor", Treatment::Cursor),
    ("nextcursor", Treatment::Cursor),
    ("previouscursor", Treatment::Cursor),
    ("path", Treatment::Expression),
    ("filter", Treatment::Expression),
    ("sortby", Treatment::Expression),
    ("attributes", Treatment::Expression),
    ("excludedattributes", Treatment::Expression),
    ("$ref", Treatment::Reference),
    ("location", Treatment::Reference),
    ("password", Treatment::Secret),
    ("detail", Treatment::Prose),
    ("description", Treatment::Prose),
    ("documentationuri", Treatment::Prose),
    ("count", Treatment::Count),
    ("startindex", Treatment::Count),
    ("totalresults", Treatment::Count),
    ("itemsperpage", Treatment::Count),
    ("failonerrors", Treatment::Count),
    ("clientsecret", Treatment::Secret),
];

fn names(attributes: &'static [Attribute], known: &mut HashSet<String>) {
    for attribute in attributes {
        known.insert(attribute.name.trim_start_matches('$').to_ascii_lowercase());
        names(attribute.subs, known);
    }
}

/// True for a word of SCIM, in any case.
pub(super) fn is_word(word: &str) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mut known: HashSet<String> = WORDS.split_whitespace().map(str::to_owned).collect();
        for table in [USER_ATTRIBUTES, GROUP_ATTRIBUTES, ENTERPRISE_ATTRIBUTES] {
            names(table, &mut known);
        }
        known
    });
    KNOWN.contains(&word.to_ascii_lowercase())
}

/// True for a word of media types and of the names of clients.
pub(super) fn is_client(word: &str) -> bool {
    const CLIENTS: &str = "application json charset utf text plain html okta scim client microsoft azure entra ad provisioning \
        google auto authentik goauthentik onelogin jumpcloud keycloak ping pingone pingfederate agent java python requests curl \
        mozilla apache httpclient okhttp axios node";
    CLIENTS.split_whitespace().any(|known| known.eq_ignore_ascii_case(word))
}

/// The treatment of the values of an attribute or parameter.
pub(super) fn kind_of(name: &str) -> Treatment {
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit([':', '.']).next().unwrap_or_default();
    if lower.contains("x509certificates") {
        return Treatment::Binary;
    }
    let message = MESSAGES.iter().find(|(known, _)| *known == last);
    let is_flag = |attributes: &[Attribute]| {
        let named = |one: &Attribute| one.kind == Kind::Boolean && one.name.eq_ignore_ascii_case(last);
        attributes.iter().any(|one| named(one) || one.subs.iter().any(named))
    };
    match message {
        Some((_, treatment)) => *treatment,
        None if is_flag(USER_ATTRIBUTES) || is_flag(GROUP_ATTRIBUTES) => Treatment::Vocabulary,
        None => Treatment::Personal,
    }
}
