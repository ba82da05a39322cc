//! The state of the engine: ledger, specs and pins.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{
    Claim, Condition as IamCondition, ConditionHash, DocumentKey, FreezeReason, GrantKey, GrantState, Ground, Intent,
    IntentAction, Kind, LedgerChange, LedgerRow, MappingKey, MappingPhase, MemberKey, Pin, Role, Subject,
};

pub(in crate::store) fn document(name: &str) -> DocumentKey {
    format!("run:projects/p/locations/l/services/{name}").parse().unwrap()
}

pub(in crate::store) fn mapping(name: &str) -> MappingKey {
    MappingKey::new("checkout", name).unwrap()
}

pub(in crate::store) fn row(member: &str, claims: &[(&str, Subject)]) -> LedgerRow {
    LedgerRow {
        grant: GrantKey {
            role: Role::new("roles/run.invoker").unwrap(),
            condition: ConditionHash::default(),
            member: MemberKey::of(member),
        },
        member: member.to_owned(),
        condition: None,
        state: GrantState::Wanted,
        intent: None,
        claims: claims.iter().map(|(name, subject)| Claim { mapping: mapping(name), subject: *subject }).collect(),
        grounds: BTreeMap::new(),
        acknowledged_at: None,
        verified_at: None,
        revoking_since: None,
        held: false,
        resource_uid: None,
        stored_as: BTreeSet::new(),
        left_at: None,
    }
}

pub(in crate::store) fn someone() -> Subject {
    Subject::User(UserId(Uuid::new_v4()))
}

async fn ledger_rows_read_back_as_written(home: Home) {
    let condition = IamCondition {
        title: "office hours".to_owned(),
        description: String::new(),
        expression: "true".to_owned(),
        location: String::new(),
        ..IamCondition::default()
    };
    let mut full = row("user:Alice@x.example", &[("a", someone()), ("b", Subject::Group(GroupId(Uuid::new_v4())))]);
    full.grant.condition = ConditionHash::of(Some(&condition));
    full.condition = Some(condition);
    full.state = GrantState::Owned;
    full.intent = Some(Intent {
        action: IntentAction::Revoke,
        revision_before: "etag".to_owned(),
        present_before: true,
        at: "2026-11-21T08:00:00.123456789Z".parse().unwrap(),
        plan_hash: "plan".to_owned(),
    });
    full.acknowledged_at = Some(home.now());
    full.verified_at = Some(home.now());
    full.revoking_since = Some("1969-12-31T23:59:59.999999999Z".parse().unwrap());
    full.held = true;
    let ground = |groups: &[u128]| Ground {
        provider: ProviderName::new("okta").unwrap(),
        groups: groups.iter().map(|n| GroupId(Uuid::from_u128(*n))).collect(),
        through: groups.iter().map(|n| GroupId(Uuid::from_u128(100 + *n))).collect(),
        mapping_uid: Some("u-1".into()),
        generation: Some(3),
        not_after: Some("2027-03-31T00:00:00Z".parse().unwrap()),
    };
    full.grounds.insert(full.claims.first().unwrap().clone(), ground(&[1, 2]));
    full.resource_uid = Some("11111111-1111-4111-8111-111111111111".to_owned());
    full.stored_as = ["user:al@x.example".to_owned()].into();
    let plain = row("user:bob@x.example", &[]);
    let d = document("s");
    let puts = vec![LedgerChange::Put(plain.clone()), LedgerChange::Put(full.clone())];
    home.store.record(&d, puts, vec![]).await.unwrap();
    assert_eq!(home.store.ledger(&d).await.unwrap(), [plain.clone(), full.clone()]);
    assert!(home.store.ledger(&document("other")).await.unwrap().is_empty());
    full.grounds.insert(full.claims.first().unwrap().clone(), ground(&[]));
    home.store.record(&d, vec![LedgerChange::Put(full.clone())], vec![]).await.unwrap();
    assert_eq!(home.store.ledger(&d).await.unwrap(), [plain.clone(), full.clone()]);

    home.store.record(&d, vec![LedgerChange::Remove(full.grant)], vec![]).await.unwrap();
    assert_eq!(home.store.ledger(&d).await.unwrap(), [plain]);
}

async fn a_put_replaces_the_claims_of_its_grant_and_no_others(home: Home) {
    let d = document("s");
    let (one, two) = (someone(), someone());
    let other = row("user:b@x.example", &[("a", one)]);
    let mut changing = row("user:a@x.example", &[("a", one), ("b", one), ("b", two)]);
    let puts = vec![LedgerChange::Put(changing.clone()), LedgerChange::Put(other.clone())];
    home.store.record(&d, puts, vec![]).await.unwrap();
    changing.claims =
        [Claim { mapping: mapping("b"), subject: two }, Claim { mapping: mapping("c"), subject: two }].into();
    changing.state = GrantState::Lost;
    home.store.record(&d, vec![LedgerChange::Put(changing.clone())], vec![]).await.unwrap();
    assert_eq!(home.store.ledger(&d).await.unwrap(), [changing.clone(), other]);

    let documents = home.store.ledger_documents().await.unwrap();
    assert_eq!(documents, [(d.clone(), BTreeSet::from([mapping("a"), mapping("b"), mapping("c")]))]);
    changing.claims.clear();
    let changes = vec![
        LedgerChange::Remove(changing.grant.clone()),
        LedgerChange::Put(changing.clone()),
        LedgerChange::Remove(row("user:b@x.example", &[]).grant),
    ];
    home.store.record(&d, changes, vec![]).await.unwrap();
    assert_eq!(home.store.ledger(&d).await.unwrap(), [changing]);
    assert_eq!(home.store.ledger_documents().await.unwrap(), [(d, BTreeSet::new())]);
}

async fn parallel_records_of_many_documents_all_stand(home: Home) {
    let tasks: Vec<_> = (0..50)
        .map(|index| {
            let store = home.store.clone();
            tokio::spawn(async move {
                let d = document(&format!("s{index}"));
                let rows: Vec<_> =
                    (0..10).map(|user| row(&format!("user:u{user}@x.example"), &[("m", someone())])).collect();
                for state in [GrantState::Wanted, GrantState::Owned] {
                    let puts = rows.iter().cloned().map(|row| LedgerChange::Put(LedgerRow { state, ..row })).collect();
                    store.record(&d, puts, vec![]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let documents: BTreeMap<_, _> = home.store.ledger_documents().await.unwrap().into_iter().collect();
    assert_eq!(documents.len(), 50);
    for d in documents.keys() {
        let ledger = home.store.ledger(d).await.unwrap();
        assert_eq!(ledger.len(), 10);
        assert!(ledger.iter().all(|row| row.state == GrantState::Owned && row.claims.len() == 1));
    }
}

async fn specs_pins_and_releases_outlive_a_restart(home: Home) {
    let spec = |name: &str, namespace: Option<&str>, generation| StoredSpec {
        kind: Kind::RoleMapping,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        generation,
        phase: MappingPhase::Live,
        source: "a.yaml".to_owned(),
        json: "{}".to_owned(),
    };
    let group = GroupId(Uuid::new_v4());
    let pin = |name: &str, group| Pin {
        mapping: mapping(name),
        provider: okta(),
        selector: "displayName:team".to_owned(),
        group,
    };
    home.store.put_spec(spec("a", Some("n"), 1)).await.unwrap();
    home.store
        .put_spec(StoredSpec { phase: MappingPhase::Missing(FreezeReason::MappingMissing), ..spec("a", Some("n"), 2) })
        .await
        .unwrap();
    home.store.put_spec(spec("b", None, 1)).await.unwrap();
    home.store.put_spec(spec("gone", None, 1)).await.unwrap();
    home.store.remove_spec(Kind::RoleMapping, None, "gone").await.unwrap();
    home.store.put_pins(vec![pin("a", GroupId(Uuid::new_v4())), pin("b", group)]).await.unwrap();
    home.store.put_pins(vec![pin("a", group)]).await.unwrap();
    home.store.remove_pins(&mapping("b")).await.unwrap();
    home.clock.advance(std::time::Duration::from_secs(5));

    let again = home.open().await;
    let missing = StoredSpec { phase: MappingPhase::Missing(FreezeReason::MappingMissing), ..spec("a", Some("n"), 2) };
    assert_eq!(again.specs().await.unwrap(), [spec("b", None, 1), missing]);
    assert_eq!(again.pins().await.unwrap(), [pin("a", group)]);
}

contract_tests! {
    ledger_rows_read_back_as_written,
    a_put_replaces_the_claims_of_its_grant_and_no_others,
    parallel_records_of_many_documents_all_stand,
    specs_pins_and_releases_outlive_a_restart,
}
