//! The question and its answer.

use std::sync::Arc;

use lockstep_model::{
    FilePath, FirmwareId, Position, Reason, ServerId,
    firmware::{Protocol, firmware_key},
};
use lockstep_replicas::{
    Live as _,
    domain::{Moment, cause::Cause, records::Records},
};

use crate::domain::{
    choose::{Asked, Offer, best, ranked},
    connection::Connection,
    device::DeviceId,
    error::ResolveError,
    explain::{Outcome, Verdict, verdicts},
    holders::holds_all,
    progress::{Progress, lacking},
    reach::Reach,
    view::{Member, View},
};

/// What a device wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A firmware update.
    Firmware(FirmwareId),
    /// A file, over HTTPS.
    File(FilePath),
}

/// Which device wants what.
#[derive(Clone, Debug)]
pub struct Question {
    /// What.
    pub subject: Subject,
    /// The server that the device talks to.
    pub current: ServerId,
    /// The device.
    pub device: DeviceId,
    /// Its site; empty for that of its current server.
    pub site: String,
    /// Whether the choice is to be explained.
    pub is_explained: bool,
}

/// Where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The data.
    pub connection: Connection,
    /// One for each server, if asked for.
    pub verdicts: Vec<Verdict>,
    /// The registry position that the answer was made at.
    pub position: Position,
}

/// What an answer is made from.
struct Look<'a, F> {
    view: &'a View,
    records: &'a Records,
    asked: Asked<'a>,
    fence: F,
    now: Moment,
}

/// Answers from `view`. `fence` tells why a server is barred by the time guard.
///
/// # Errors
/// [`ResolveError`]: never wrong data (R51).
pub fn resolve(
    view: &View,
    question: &Question,
    fence: impl Fn(&ServerId) -> Option<Cause>,
    now: Moment,
) -> Result<Answer, ResolveError> {
    let (position, records) = view.position().zip(view.copies().records()).ok_or(ResolveError::Unread)?;
    let current = view.member_of(&question.current);
    let current = current.ok_or_else(|| ResolveError::UnknownServer { server: question.current.clone() })?;
    let site = if question.site.is_empty() { &current.site } else { &question.site };
    let asked = Asked { current: &question.current, device: &question.device, site };
    let look = Look { view, records, asked, fence, now };
    let (connection, verdicts) = match &question.subject {
        Subject::Firmware(id) => look.firmware(id, current, question.is_explained)?,
        Subject::File(path) => look.file(path, question.is_explained)?,
    };
    Ok(Answer { connection, verdicts, position })
}

impl<'a, F: Fn(&ServerId) -> Option<Cause>> Look<'a, F> {
    fn firmware(
        &self,
        id: &FirmwareId,
        current: &'a Member,
        is_explained: bool,
    ) -> Result<(Connection, Vec<Verdict>), ResolveError> {
        let known = self.view.firmware(id).ok_or(ResolveError::FirmwareNotFound { id: *id })?;
        let unreadable = || ResolveError::Unreadable { key: firmware_key(id) };
        let update = known.update.as_deref().ok_or_else(unreadable)?;
        let not_yet = |progress: Progress| ResolveError::NotYet {
            subject: format!("the firmware update {} ({id})", update.name),
            progress: Box::new(progress),
        };
        if !update.is_published() {
            return Err(not_yet(Progress::unpublished(update)));
        }
        if !update.protocol.is_webdav() {
            if update.protocol != Protocol::File && update.entered.host.is_empty() {
                return Err(not_yet(Progress::incomplete("nobody entered a host for it")));
            }
            let data = Connection::entered(update.protocol, &update.entered, update.login.clone());
            return Ok((data, Vec::new()));
        }
        let files = || update.files.iter().map(String::as_str).collect::<Vec<_>>();
        let data = |server: &Member, reach: &Reach| {
            Connection::webdav(update.protocol, &server.id, reach, &update.target, update.login.clone())
        };
        // What is asked most is answered at once: the current server holds it (R47).
        if !is_explained
            && self.view.slot_of(&current.id).is_some_and(|slot| known.holders.has(slot))
            && let Some(reach) = &current.reach
            && (self.fence)(&current.id).is_none()
        {
            return Ok((data(current, reach), Vec::new()));
        }
        let holders = known.holders.iter().filter_map(|slot| self.view.member(slot));
        let found = if is_explained { self.explained(holders, &files()) } else { self.chosen(holders) };
        let progress = || match update.foreign(self.records) {
            Some(path) => Progress::incomplete(&format!("{path} is not the file of the update any more")),
            None => Progress::of(self.view, self.records, &files(), self.now),
        };
        let (server, reach, verdicts) = found.ok_or_else(|| not_yet(progress()))?;
        Ok((data(server, reach), verdicts))
    }

    fn file(&self, path: &FilePath, is_explained: bool) -> Result<(Connection, Vec<Verdict>), ResolveError> {
        let files = [path.as_str()];
        if self.records.file(path.as_str()).is_none() {
            return Err(ResolveError::FileNotFound { path: path.clone() });
        }
        let holds = |member: &&Member| {
            self.view
                .server(&member.id)
                .is_some_and(|server| holds_all((&member.id, server), self.records, files))
        };
        let holders = self.view.members().map(|(_, member)| member).filter(holds);
        let found = if is_explained { self.explained(holders, &files) } else { self.chosen(holders) };
        let (server, reach, verdicts) = found.ok_or_else(|| ResolveError::NotYet {
            subject: path.to_string(),
            progress: Box::new(Progress::of(self.view, self.records, &files, self.now)),
        })?;
        let login = Arc::default();
        Ok((Connection::webdav(Protocol::HttpsWebdav, &server.id, reach, path.as_str(), login), verdicts))
    }

    /// The holders that can be offered. One that nobody knows how to reach cannot.
    fn offers<'m>(&self, holders: impl Iterator<Item = &'m Member>) -> impl Iterator<Item = Offer<'m>> {
        holders.filter(|member| member.reach.is_some()).map(|member| Offer {
            id: &member.id,
            site: &member.site,
            load: member.load,
            mark: member.mark,
            is_fenced: (self.fence)(&member.id).is_some(),
        })
    }

    fn chosen(
        &self,
        holders: impl Iterator<Item = &'a Member>,
    ) -> Option<(&'a Member, &'a Reach, Vec<Verdict>)> {
        let chosen = self.view.member_of(best(&self.asked, self.offers(holders))?.id)?;
        Some((chosen, chosen.reach.as_ref()?, Vec::new()))
    }

    fn explained(
        &self,
        holders: impl Iterator<Item = &'a Member>,
        files: &[&str],
    ) -> Option<(&'a Member, &'a Reach, Vec<Verdict>)> {
        let ranked = ranked(&self.asked, self.offers(holders));
        let chosen = self.view.member_of(ranked.first()?.id)?;
        let reach = |id: &ServerId| self.view.member_of(id)?.reach.clone();
        let mut verdicts = verdicts(&self.asked, &ranked, reach);
        let left = self.view.members().map(|(_, member)| member);
        let left = left.filter(|member| ranked.iter().all(|offer| *offer.id != member.id));
        verdicts.extend(left.map(|member| self.excluded(member, files)));
        Some((chosen, chosen.reach.as_ref()?, verdicts))
    }

    fn excluded(&self, member: &Member, files: &[&str]) -> Verdict {
        let (text, cause) = match (&member.reach, self.view.server(&member.id)) {
            (Some(_), Some(server)) => lacking((&member.id, server), self.records, files, self.now),
            _ => {
                let text = "what is said of its addresses cannot be read by this version";
                (text.to_owned(), Cause::new(Reason::RegistryUnavailable, text))
            }
        };
        Verdict {
            id: member.id.clone(),
            outcome: Outcome::Excluded(cause),
            message: format!("it {text}"),
            rank: 0,
        }
    }
}
