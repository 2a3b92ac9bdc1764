//! Answers questions from memory.

use lockstep_chassis::SealKey;
use lockstep_model::{FirmwareId, Position};

use crate::{
    domain::{
        connection::Connection,
        error::ResolveError,
        explain::Verdict,
        resolve::{Question, Subject, resolve},
        update::Login,
    },
    engine::Board,
    ports::Clocks,
};

/// An answer with what is secret in it.
#[derive(Clone)]
pub struct Opened {
    /// The data.
    pub connection: Connection,
    /// The password, in plain text; may be empty.
    pub password: String,
    /// One for each server, if asked for.
    pub verdicts: Vec<Verdict>,
    /// The registry position that the answer was made at.
    pub position: Position,
}

/// The choice over the live view. Clones share it.
#[derive(Clone, Debug)]
pub struct Resolver<C> {
    board: Board,
    clocks: C,
    key: Option<SealKey>,
}

impl<C: Clocks> Resolver<C> {
    /// Over a view, clocks, and the key of stored passwords, if there is one.
    pub fn new(board: Board, clocks: C, key: Option<SealKey>) -> Self {
        Self { board, clocks, key }
    }

    /// Where a device gets what it wants.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn resolve(&self, question: &Question) -> Result<Opened, ResolveError> {
        let now = self.board.now();
        let answer =
            self.board.read(|view| resolve(view, question, |server| self.clocks.fence(server), now))?;
        let password = match &question.subject {
            Subject::Firmware(id) => self.open(id, &answer.connection.login)?,
            Subject::File(_) => String::new(),
        };
        let crate::domain::resolve::Answer { connection, verdicts, position } = answer;
        Ok(Opened { connection, password, verdicts, position })
    }

    fn open(&self, id: &FirmwareId, login: &Login) -> Result<String, ResolveError> {
        let sealed = |cause: String| ResolveError::Sealed { subject: format!("firmware update {id}"), cause };
        if login.sealed_password.is_empty() {
            return Ok(String::new());
        }
        let key = self.key.as_ref();
        let key = key.ok_or_else(|| sealed("this resolver was started without --password-key".to_owned()))?;
        key.open(&login.sealed_password, &login.owner).map_err(|error| sealed(error.to_string()))
    }
}
