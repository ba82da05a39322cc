//! Databases of the first version.

use std::collections::BTreeSet;

use super::*;
use crate::model::{AuditOutcome, DirectoryChange, DocumentKey, GrantState, Kind, MappingKey, MemberKey, Pin, Subject};

/// At least one row in every table of schema step 1 but `events` and `audit`, which the test writes.
const ROWS: &str = include_str!("../../../../tests/fixtures/store/first_version.sql");

fn person(n: u128) -> UserId {
    UserId(Uuid::from_u128(0x4000_8000_0000_0000_0000 + n))
}

/// Creates a database as the first version left it.
fn first_version(folder: &Path) {
    let joined = DirectoryChange::Members {
        group: GroupId(Uuid::from_u128(0x4000_8000_0000_0000_0010)),
        added: vec![person(1)],
        removed: vec![],
    };
    let events = [DirectoryChange::UserDeleted { id: person(3) }, joined];
    // Hash of a row of the first version, computed only from its columns.
    let columns = r#"[1,1801396800000000000,["idp:okta/a","req-1","[1]",null,null,"user.create",null,null,"00000000-0000-4000-8000-000000000001",null,null,null,"acknowledged",null,null]]"#;
    testing::first_version(&folder.join("rolecall.db").display().to_string(), |db| {
        db.execute_batch(ROWS)?;
        for (seq, change) in (1_i64..).zip(events) {
            let change = serde_json::to_string(&change).unwrap();
            db.execute("INSERT INTO events VALUES (?, 'okta', 1801396800000000000, ?)", (seq, change))?;
        }
        db.execute(
            "INSERT INTO audit (seq, at, actor, request_id, cause_seqs, action, subject, outcome, person, hash) \
             VALUES (1, 1801396800000000000, 'idp:okta/a', 'req-1', '[1]', 'user.create', \
                '00000000-0000-4000-8000-000000000001', 'acknowledged', 1, ?)",
            [crate::store::audit::sha256(&[columns])],
        )?;
        Ok(())
    });
}

#[tokio::test]
async fn database_of_the_first_version_opens_whole_and_its_history_begins_with_its_specs() {
    let folder = tempfile::tempdir().unwrap();
    first_version(folder.path());
    let clock = Arc::new(ManualClock::new("2027-02-01T08:00:00Z".parse().unwrap()));
    let store = open(folder.path(), clock.clone()).await;

    assert_eq!(store.id().to_string(), "11111111-1111-4111-8111-111111111111");
    assert_eq!(store.user(&okta(), person(1)).await.unwrap().unwrap().facts.user_name, "alice@corp.example");
    let stored = store.counts(&okta()).await.unwrap();
    assert_eq!((stored.users, stored.groups), (2, 1));
    assert_eq!(store.events_after(0, 10).await.unwrap().len(), 2);
    assert_eq!(store.verify_audit_chain().await.unwrap(), 1);
    let row = store.audit_after(0, 1).await.unwrap().remove(0);
    assert_eq!((row.entry.outcome, row.name.as_deref()), (AuditOutcome::Acknowledged, Some("user:alice@corp.example")));
    assert_eq!(store.leader().await.unwrap().unwrap().epoch.to_string(), "4");
    let d: DocumentKey = "run:projects/shop/locations/europe-west1/services/api".parse().unwrap();
    let grant = store.ledger(&d).await.unwrap().remove(0);
    assert_eq!(
        (grant.state, grant.grant.member.clone()),
        (GrantState::Owned, MemberKey::of("user:alice@corp.example"))
    );
    let claim = grant.claims.first().unwrap();
    assert_eq!(claim.subject, Subject::User(person(1)));
    assert!(grant.grounds.is_empty(), "where it came from is not known");
    let decided: Vec<_> = store.decisions().await.unwrap().into_iter().map(|pending| pending.decision).collect();
    assert_eq!(decided, [Decision::ReleaseMapping(MappingKey::new("checkout", "team").unwrap())]);

    // The history: three specs and a pin after the two events, and no trace of the Secret.
    let specs = store.specs().await.unwrap();
    assert_eq!(specs.len(), 4);
    assert_eq!((store.highest_seq().await.unwrap(), store.oldest_seq().await.unwrap()), (6, 6));
    let mut changes = 0;
    let past = store.catalog_at(6, &mut |_, _| changes += 1).await.unwrap();
    assert_eq!(changes, 2);
    let kinds: BTreeSet<Kind> = past.specs.iter().map(|version| version.kind).collect();
    assert_eq!(kinds, BTreeSet::from(Kind::RESOURCES));
    let pin = Pin {
        mapping: MappingKey::new("checkout", "team").unwrap(),
        provider: okta(),
        selector: "displayName:team-checkout".to_owned(),
        group: GroupId(Uuid::from_u128(0x4000_8000_0000_0000_0010)),
    };
    assert_eq!(past.pins, [pin]);
    assert_eq!(store.pins().await.unwrap(), past.pins);

    // The database works: applying the same objects again creates no version, changes do.
    store.begin_epoch("test").await.unwrap();
    for spec in specs.clone() {
        store.put_spec(spec).await.unwrap();
    }
    assert_eq!((store.highest_seq().await.unwrap(), store.highest_audit_seq().await.unwrap()), (6, 1));
    let mapping = specs.into_iter().find(|spec| spec.kind == Kind::RoleMapping).unwrap();
    store.put_spec(StoredSpec { generation: 4, ..mapping }).await.unwrap();
    let versions = store.spec_versions(Kind::RoleMapping, Some("checkout"), "team").await.unwrap();
    assert_eq!(versions.iter().map(|version| version.generation).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(versions[1].seq, 7);
    assert_eq!(versions[0].uid, versions[1].uid);
    add_user(&store, &okta(), "carol@corp.example").await;
    assert_eq!(store.highest_seq().await.unwrap(), 8);
    assert_eq!(store.verify_audit_chain().await.unwrap(), 3);
}

#[tokio::test]
async fn database_of_the_first_version_can_be_pruned_and_its_people_erased() {
    let folder = tempfile::tempdir().unwrap();
    first_version(folder.path());
    let clock = Arc::new(ManualClock::new("2027-02-01T08:00:00Z".parse().unwrap()));
    let store = open(folder.path(), clock.clone()).await;
    let before = (store.highest_seq().await.unwrap(), store.oldest_seq().await.unwrap());
    // The rows of the first version are from the day before; the objects in force are from the moment of the upgrade.
    let pruned = store.prune(clock.now(), false).await.unwrap();
    assert_eq!((pruned.audit_rows, pruned.audit_since), (1, 2));
    assert_eq!((store.highest_seq().await.unwrap(), store.oldest_seq().await.unwrap()), before);
    assert_eq!(store.verify_audit_chain().await.unwrap(), 1);
    let alice = store.user(&okta(), person(1)).await.unwrap().unwrap().facts;
    assert_eq!(alice.user_name, "alice@corp.example");
    assert_eq!(store.erase_person(Some(person(1)), None, false).await.unwrap(), Erasure::NotDeleted(okta()));
}

#[tokio::test]
async fn groups_nested_in_an_older_database_are_announced_and_give_nothing_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let id = |n: u128| GroupId(Uuid::from_u128(0x4000_8000_0000_0000_0100 + n));
    testing::first_version(&folder.path().join("rolecall.db").display().to_string(), |db| {
        db.execute_batch(ROWS)?;
        for n in 1..=3 {
            db.execute(
                "INSERT INTO groups (provider, id, display_name, display_name_fold, resource, member_count, version, \
                    created_at, updated_at) VALUES ('entra', ?1, ?2, ?2, '{}', 0, 1, 0, 0)",
                rusqlite::params![id(n).0, format!("g{n}")],
            )?;
        }
        for (outer, inner) in [(1, 2), (1, 3), (3, 1)] {
            let sql = "INSERT INTO members VALUES ('entra', ?, ?, 'group')";
            db.execute(sql, rusqlite::params![id(outer).0, id(inner).0])?;
        }
        Ok(())
    });
    let clock = Arc::new(ManualClock::new("2027-02-01T08:00:00Z".parse().unwrap()));
    let store = open(folder.path(), clock).await;
    let nested = |outer, inner: &[u128]| DirectoryChange::Nested {
        group: id(outer),
        added: inner.iter().map(|n| id(*n)).collect(),
        removed: vec![],
    };
    let (since, highest) = (store.oldest_seq().await.unwrap(), store.highest_seq().await.unwrap());
    assert_eq!(highest, since + 2);
    let events = store.events_after(since, 10).await.unwrap();
    let changes: Vec<_> = events.into_iter().map(|event| event.change).collect();
    assert_eq!(changes, [nested(1, &[2, 3]), nested(3, &[1])]);
    let mut loaded = Vec::new();
    store.snapshot(&mut |_, change| loaded.push(change)).await.unwrap();
    assert!(changes.iter().all(|change| loaded.contains(change)), "{loaded:?}");
    let entra = provider("entra");
    assert_eq!(store.before_nesting().await.unwrap(), std::collections::BTreeSet::from([okta(), entra.clone()]));
    let mut sink = |_, change| assert!(!matches!(change, DirectoryChange::Nested { .. }));
    assert_eq!(
        store.catalog_at(since, &mut sink).await.unwrap().before_nesting,
        std::collections::BTreeSet::from([okta(), entra])
    );
}

#[test]
fn steps_of_the_schema_have_the_checksums_that_existing_databases_carry() {
    let recorded = [
        0x58b6_3292,
        0x5754_09ca,
        0x49df_a0f2,
        0xba33_5121,
        0xdd26_8547,
        0x2de6_9523,
        0x21a6_fb56,
        0x6cf5_542a,
        0xd4bc_f182,
        0x5157_b6d6,
        0x74d7_b2f1,
        0xeb6a_c5ba,
        0x1e36_6b56,
        0xc8d2_85d3,
        0x8f04_649e,
        0x6e89_1c2d,
    ];
    assert_eq!(testing::checksums(), recorded, "as sqlx wrote them");
}
