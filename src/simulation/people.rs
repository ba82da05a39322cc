//! Steps of the IdP with people: created, changed, deleted, and looked up before that.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::driver::{Simulation, okta, origin};
use super::facts::{DOMAIN, Person, address};
use super::names::EXTERNAL_IDS;
use super::steps::{ADDRESSES, short};
use crate::model::{EmailFact, UserFacts, UserId};
use crate::scim::{Findings, ResourceType, parse};
use crate::store::{ListQuery, NewUser, StoreError, UserUpdate};

/// Largest number of people at a time.
const PEOPLE: usize = 6;

impl Simulation {
    pub(super) async fn create_person(&mut self) {
        let (number, external_id) = (self.chance.below(ADDRESSES), self.some_external_id(2));
        self.create(number, external_id).await;
    }

    async fn create(&mut self, number: usize, external_id: Option<String>) {
        let present = self.facts().people.values().filter(|person| !person.deleted).count();
        if present >= PEOPLE {
            return self.change_members().await;
        }
        let (id, by_email) = (UserId(self.chance.id()), self.facts().setup.by_email);
        if !by_email && self.is_taken(number) {
            return;
        }
        let person = Person {
            active: true,
            deleted: false,
            address: Some(address(number)),
            external_id,
            left_at: None,
            was_away: Vec::new(),
        };
        self.say(format!("create p{number} as {}, externalId {:?}", short(id.0), person.external_id));
        let (resource, facts) = scim(id, &person, by_email);
        let store = self.idp();
        if self.request(id.0, store.create_user(&okta(), &origin(), NewUser { resource, facts })).await {
            self.facts().put_person(id, person);
        }
    }

    /// One of the values of `externalId`, in one of so many cases.
    pub(super) fn some_external_id(&self, cases: usize) -> Option<String> {
        self.chance.one_in(cases).then(|| EXTERNAL_IDS[self.chance.below(EXTERNAL_IDS.len())].to_owned())
    }

    fn is_taken(&self, number: usize) -> bool {
        let text = address(number);
        self.facts().people.values().any(|person| !person.deleted && person.address.as_ref() == Some(&text))
    }

    pub(super) fn somebody(&self, is: impl Fn(&Person) -> bool) -> Option<UserId> {
        let of: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| !person.deleted && is(person)).map(|(id, _)| *id).collect();
        self.chance.pick(&of)
    }

    async fn update(&mut self, id: UserId, change: impl FnOnce(&mut Person)) {
        let by_email = self.facts().setup.by_email;
        let Some(mut person) = self.facts().people.get(&id).cloned() else { return };
        change(&mut person);
        let now = self.now();
        match person.left_at {
            Some(left) if person.active => {
                person.was_away.push((left, now));
                person.left_at = None;
            }
            None if !person.active => person.left_at = Some(now),
            _ => {}
        }
        let (resource, facts) = scim(id, &person, by_email);
        let update = |_: &_| Ok(Some(UserUpdate { resource: resource.clone(), facts: facts.clone() }));
        let store = self.idp();
        if self.request(id.0, store.update_user::<()>(&okta(), &origin(), id, update)).await {
            self.facts().put_person(id, person);
        }
    }

    pub(super) async fn set_active(&mut self, active: bool) {
        let Some(id) = self.somebody(|person| person.active != active) else { return };
        self.say(format!("{} {}", if active { "activate" } else { "deactivate" }, self.name(id)));
        self.update(id, |person| person.active = active).await;
    }

    /// Deactivates or deletes everybody.
    pub(super) async fn everybody_leaves(&mut self) {
        self.say("everybody leaves");
        let ids: Vec<UserId> =
            self.facts().people.iter().filter(|(_, person)| person.active).map(|(id, _)| *id).collect();
        for id in ids {
            self.update(id, |person| person.active = false).await;
        }
        // Requests that the store refused are repeated by the IdP.
        let is_left = self.facts().people.values().all(|person| person.left_at.is_some());
        if !is_left {
            self.problems.push("a request was refused although the store refuses nothing".to_owned());
        }
    }

    pub(super) async fn delete_person(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        self.say(format!("delete {}", self.name(id)));
        let now = self.now();
        let store = self.idp();
        if self.request(id.0, store.delete_user(&okta(), &origin(), id, None)).await {
            self.facts().delete_person(id, now);
        }
    }

    pub(super) async fn change_address(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        let (by_email, number) = (self.facts().setup.by_email, self.chance.below(ADDRESSES));
        let new = match self.chance.below(5) {
            0 if by_email => None,
            1 => Some(format!("out{number}-{}@elsewhere.example", short(id.0))),
            _ if !by_email && self.is_taken(number) => return,
            _ => Some(address(number)),
        };
        self.say(format!("{} is {new:?} from here on", self.name(id)));
        self.update(id, |person| person.address = new).await;
    }

    pub(super) async fn change_external_id(&mut self) {
        let Some(id) = self.somebody(|_| true) else { return };
        self.set_external_id(id).await;
    }

    async fn set_external_id(&mut self, id: UserId) {
        let new = self.some_external_id(1).filter(|_| !self.chance.one_in(4));
        self.say(format!("{} has the externalId {new:?} from here on", self.name(id)));
        self.update(id, |person| person.external_id = new).await;
    }

    /// Looks for a person, and creates or changes the one who is found, as an IdP does before each of its changes.
    pub(super) async fn look_up_and_change(&mut self) {
        let (by_email, number) = (self.facts().setup.by_email, self.chance.below(ADDRESSES));
        let address = if self.chance.one_in(4) { address(number).to_uppercase() } else { address(number) };
        let external_id = self.some_external_id(2);
        let filter = match &external_id {
            Some(text) => format!("externalId eq \"{text}\""),
            None if by_email => format!("emails[type eq \"work\"].value eq \"{address}\""),
            None => format!("userName eq \"{address}\""),
        };
        let is_it = |person: &Person| match &external_id {
            Some(_) => person.external_id == external_id,
            None => person.address.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(&address)),
        };
        let people = self.facts().people.clone();
        let wanted = people.iter().filter(|(_, person)| !person.deleted && is_it(person)).map(|(id, _)| *id).collect();
        let Some(found) = self.look_up(&filter, &wanted).await else { return };
        match found.as_slice() {
            [] => self.create(number, external_id).await,
            [id] if self.chance.one_in(2) => self.set_external_id(*id).await,
            [id] => {
                self.say(format!("activate or deactivate {}", self.name(*id)));
                self.update(*id, |person| person.active = !person.active).await;
            }
            _ => {}
        }
    }

    /// The people that the store finds; none when it did not answer.
    async fn look_up(&mut self, filter: &str, wanted: &BTreeSet<UserId>) -> Option<Vec<UserId>> {
        self.say(format!("look up {filter}"));
        let query = users_with(filter);
        let (store, okta) = (self.idp(), okta());
        let answer = match self.until_the_end(store.users(&okta, &query)).await? {
            Ok(page) => page,
            Err(StoreError::Unavailable { .. }) => return None,
            Err(error) => {
                self.problems.push(format!("look up {filter}: {error}"));
                return None;
            }
        };
        let found: Vec<UserId> = answer.items.iter().map(|user| user.facts.id).collect();
        if found.iter().copied().collect::<BTreeSet<_>>() != *wanted || answer.total != wanted.len() as u64 {
            self.problems.push(format!("look up {filter}: found {found:?} of {}, not {wanted:?}", answer.total));
        }
        Some(found)
    }

    /// Values of `externalId` by which the store finds other people than the model.
    pub(super) async fn look_ups_differ(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for text in EXTERNAL_IDS {
            let found = self.store().users(&okta(), &users_with(&format!("externalId eq \"{text}\""))).await;
            let found: BTreeSet<UserId> = found.expect("people").items.iter().map(|user| user.facts.id).collect();
            let facts = self.facts();
            let has = |person: &Person| !person.deleted && person.external_id.as_deref() == Some(text);
            let wanted: BTreeSet<UserId> =
                facts.people.iter().filter(|(_, person)| has(person)).map(|(id, _)| *id).collect();
            if found != wanted {
                problems.push(format!("the store finds {found:?} by the externalId {text}, not {wanted:?}"));
            }
        }
        problems
    }

    fn name(&self, id: UserId) -> String {
        let address = self.facts().people.get(&id).and_then(|person| person.address.clone());
        format!("{} ({})", short(id.0), address.as_deref().unwrap_or("-").trim_end_matches(&format!("@{DOMAIN}")))
    }
}

/// A list of all users that match a filter.
fn users_with(filter: &str) -> ListQuery {
    let filter = parse::filter(filter, &mut Findings::new()).and_then(|filter| filter.resolved(ResourceType::User));
    ListQuery { filter: Some(filter.expect("a filter")), start_index: 1, count: 100, ..ListQuery::default() }
}

fn scim(id: UserId, person: &Person, by_email: bool) -> (Value, UserFacts) {
    let user_name = match &person.address {
        Some(address) if !by_email => address.clone(),
        _ => format!("u-{id}"),
    };
    let emails: Vec<EmailFact> = person
        .address
        .iter()
        .filter(|_| by_email)
        .map(|value| EmailFact { value: value.clone(), kind: Some("work".to_owned()), primary: true })
        .collect();
    let values: Vec<Value> =
        emails.iter().map(|email| json!({"value": email.value, "type": "work", "primary": true})).collect();
    let external_id = person.external_id.clone();
    let mut resource = json!({"userName": user_name, "active": person.active, "emails": values});
    if let Some(external_id) = &external_id {
        resource["externalId"] = json!(external_id);
    }
    (resource, UserFacts { id, active: person.active, user_name, external_id, emails })
}
