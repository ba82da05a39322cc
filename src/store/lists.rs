//! Lists of users and groups, planned before they are read.

use super::sqlite::list::{self, Narrowed};
use super::sqlite::scan::{self, Scan};
use super::{ListPlan, ListQuery, Match, Store, StoreError};
use crate::model::ProviderName;
use crate::scim::{ResourceType, SortKey, Work};

impl Store {
    /// Plans a list: the users or groups in it, and their sizes. What no index answers is found by reading resources, a
    /// part at a time, so that look-ups of others are answered between the parts.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`], [`StoreError::ListTooLarge`], [`StoreError::ListTooCostly`]; never a part of
    /// the results.
    pub(crate) async fn plan_list(
        &self,
        of: ResourceType,
        p: &ProviderName,
        q: &ListQuery,
    ) -> Result<ListPlan, StoreError> {
        let (name, query) = (p.clone(), q.clone());
        match self.read(move |db| list::narrow(db, of, &name, &query)).await? {
            Narrowed::Answered(plan) => Ok(plan),
            Narrowed::Candidates(candidates) => {
                Ok(page(self.scanned(of, p, q, &candidates, &mut Work::of_a_scan()).await?, q))
            }
        }
    }

    /// All resources of a sorted list with their keys, in the order of creation, to be merged with those of other types.
    ///
    /// # Errors
    /// As [`Store::plan_list`].
    pub(crate) async fn plan_sorted(
        &self,
        of: ResourceType,
        p: &ProviderName,
        q: &ListQuery,
        work: &mut Work,
    ) -> Result<Vec<Match>, StoreError> {
        let (name, query) = (p.clone(), q.clone());
        match self.read(move |db| list::narrow(db, of, &name, &query)).await? {
            Narrowed::Answered(plan) => {
                Ok(plan.rows.into_iter().map(|row| Match { row, key: SortKey::Missing }).collect())
            }
            Narrowed::Candidates(candidates) => self.scanned(of, p, q, &candidates, work).await,
        }
    }

    async fn scanned(
        &self,
        of: ResourceType,
        p: &ProviderName,
        q: &ListQuery,
        candidates: &[i64],
        work: &mut Work,
    ) -> Result<Vec<Match>, StoreError> {
        let mut scan = Scan::new(of, p, q)?;
        let mut matches: Vec<Match> = Vec::new();
        let mut rest = candidates;
        while !rest.is_empty() {
            let part = rest[..rest.len().min(scan::PART)].to_vec();
            let mut used = *work;
            let (found, read, returned, spent) = self
                .read(move |db| {
                    let (found, read) = scan.part(db, &part, &mut used)?;
                    Ok((found, read, scan, used))
                })
                .await?;
            matches.extend(found);
            (scan, *work) = (returned, spent);
            // A part ends early when its resources are large.
            rest = &rest[read..];
        }
        Ok(matches)
    }
}

/// The requested page of the resources that match.
fn page(mut matches: Vec<Match>, q: &ListQuery) -> ListPlan {
    let total = matches.len() as u64;
    if let Some(sort) = &q.sort {
        // The sort is stable: equal keys stay in the order of creation.
        matches.sort_by(|one, other| sort.compare(&one.key, &other.key));
    }
    let skipped = usize::try_from(q.start_index.saturating_sub(1)).unwrap_or(usize::MAX);
    let count = usize::try_from(q.count).unwrap_or(usize::MAX);
    let after = q.after.unwrap_or(i64::MIN);
    let rows = matches.into_iter().map(|found| found.row).filter(|row| row.position > after);
    ListPlan { rows: rows.skip(skipped).take(count).collect(), total }
}
