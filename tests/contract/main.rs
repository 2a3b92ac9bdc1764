//! Contract tests: do the schema, the code and the documents agree?
//!
//! Everything is read from the repository and from the embedded descriptor set; no process is started and no other
//! tool is needed, so the whole binary takes a moment. Each module is one question:
//!
//! ```text
//! naming shape comments   is the contract written as the style asks?          (H1)
//! fields                  did anything recorded change its meaning?           (H2)
//! reasons                 do proto, model and tests agree on every reason?    (H3)
//! graph                   do code, manifests and rights keep the call graph?  (H4)
//! layers length           do the rings and the file length hold?              (H5)
//! rules                   has every rule a test, and every test a rule?       (H6)
//! documents               do the documents name only what exists?             (H7)
//! hostile_names           does the table of names say what happens?           (R6, R70)
//! ```

mod comments;
mod contract;
mod documents;
mod fields;
mod graph;
mod hostile_names;
mod layers;
mod length;
mod naming;
mod reasons;
mod repository;
mod rules;
mod shape;
mod source;
