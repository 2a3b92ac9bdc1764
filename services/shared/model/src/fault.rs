//! What can go wrong, as data: a stable reason, the kind it belongs to, and the values that its text shows.

use std::{fmt, time::Duration};

/// What a caller has to do about an error. Each kind is one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Fix the call.
    Invalid,
    /// Use another certificate.
    Unauthenticated,
    /// Ask an admin.
    Denied,
    /// Stop: it is not there.
    NotFound,
    /// Choose: another name, or the revision that is there.
    Exists,
    /// Change the world first.
    State,
    /// Continue from the given point.
    Range,
    /// Restart the sequence.
    Conflict,
    /// Wait as told.
    Exhausted,
    /// Retry with back-off.
    Unavailable,
    /// Allow more time.
    Late,
    /// It is not built.
    Unbuilt,
    /// Use another server, alert.
    Corrupt,
    /// Report it.
    Bug,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $text:literal $kind:ident $advice:literal;)*) => {
        /// Why something failed or is not (yet) so: the closed, stable list that programs match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text on the wire, `UPPER_SNAKE`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The kind, which decides the gRPC code.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// What a person can do about it.
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

reasons! {
    /// A field of the request breaks its documented bounds.
    FieldViolation "FIELD_VIOLATION" Invalid "correct the fields that are named";
    /// The name cannot be stored on every server.
    PathInvalid "PATH_INVALID" Invalid "choose a name that keeps the rule that is named";
    /// A page token that was not made by this call with these parameters.
    PageTokenInvalid "PAGE_TOKEN_INVALID" Invalid "start the listing again without a page token";
    /// A call that concerns one server did not say which.
    ServerRequired "SERVER_REQUIRED" Invalid "name one of the servers in the metadata key lockstep-server";
    /// The certificate is valid, but nobody here knows its owner.
    IdentityUnknown "IDENTITY_UNKNOWN" Unauthenticated "use the certificate of a known operator or server";
    /// The caller lacks the right for this call.
    PermissionDenied "PERMISSION_DENIED" Denied "ask an admin for the right that is named";
    /// No such file object.
    FileNotFound "FILE_NOT_FOUND" NotFound "list the files to find the exact path";
    /// No such upload of this caller.
    UploadNotFound "UPLOAD_NOT_FOUND" NotFound "upload the content again, to the server that registers it";
    /// No such content here.
    ContentNotFound "CONTENT_NOT_FOUND" NotFound "look at what this server has and name that, or ask another server";
    /// No such server.
    ServerUnknown "SERVER_UNKNOWN" NotFound "list the servers to find its id";
    /// The path is registered already.
    FileExists "FILE_EXISTS" Exists "choose another path, or delete the file that is there";
    /// Some server could not tell the path from one that is registered.
    PathConflict "PATH_CONFLICT" Exists "choose a path that differs in more than case or composition, and no file where a directory is needed";
    /// Bytes that nobody registered are at the path.
    LooseFileExists "LOOSE_FILE_EXISTS" Exists "move the loose file away, or choose another path";
    /// The object changed since it was read.
    RevisionChanged "REVISION_CHANGED" State "read the object again and decide again";
    /// The request id was used for another request.
    RequestIdReused "REQUEST_ID_REUSED" State "use a new request id for a new request";
    /// The server takes no part in synchronisation.
    ServerNotEligible "SERVER_NOT_ELIGIBLE" State "use a server that takes part, or upgrade this one";
    /// The registry holds another history than the one this server followed.
    HistoryForked "HISTORY_FORKED" State "an admin must compare the databases and accept one history";
    /// The store is not the one this server was made with.
    StoreOffline "STORE_OFFLINE" State "mount the root directory of this server, then restart it; if it is lost for good, see --lost-store of lockstep filesync";
    /// The store cannot be written.
    StoreReadOnly "STORE_READ_ONLY" State "make the root directory writable again";
    /// The upload stands at another offset.
    OffsetMismatch "OFFSET_MISMATCH" Range "continue at the offset that is named";
    /// More than the documented limit.
    SizeLimitExceeded "SIZE_LIMIT_EXCEEDED" Range "send less at once, or use an upload";
    /// The registry no longer keeps the changes after this position.
    PositionTooOld "POSITION_TOO_OLD" Range "take a snapshot and continue from its position";
    /// The watch cannot be resumed from this token.
    ResumeTokenExpired "RESUME_TOKEN_EXPIRED" Range "watch again without a token";
    /// The bytes are not those that were announced.
    ContentDigestMismatch "CONTENT_DIGEST_MISMATCH" Conflict "read the source again and upload it anew";
    /// The bytes changed while they were read.
    ContentChanged "CONTENT_CHANGED" Conflict "try again when nobody writes to the file";
    /// The disk has too little room.
    DiskFull "DISK_FULL" Exhausted "free the space that is named; copying goes on by itself";
    /// More work than the bounds allow.
    Overloaded "OVERLOADED" Exhausted "wait and try again";
    /// The registry did not answer, so nothing was decided.
    RegistryUnavailable "REGISTRY_UNAVAILABLE" Unavailable "check the registry database, then repeat with the same request id";
    /// A peer did not answer.
    PeerUnreachable "PEER_UNREACHABLE" Unavailable "check that the server runs and can be reached";
    /// No server that can be reached holds the content.
    NoHolder "NO_HOLDER" Unavailable "start a server that holds it, or register the same content again";
    /// The process is about to stop.
    Draining "DRAINING" Unavailable "try again; another instance or the restarted one answers";
    /// The deadline leaves no time for useful work.
    DeadlineTooShort "DEADLINE_TOO_SHORT" Late "allow more time";
    /// The deadline passed.
    DeadlineExpired "DEADLINE_EXPIRED" Late "allow more time; repeating with the same request id is safe";
    /// The call is not built.
    Unimplemented "UNIMPLEMENTED" Unbuilt "list the services by reflection to see what there is";
    /// Bytes on the disk are not the ones that were verified.
    StoredContentCorrupt "STORED_CONTENT_CORRUPT" Corrupt "use another server; check the disk of this one";
    /// A defect in Lockstep.
    Internal "INTERNAL" Bug "report it with the trace id";
    /// Below the least version that takes part (R14).
    UnsupportedVersion "UNSUPPORTED_VERSION" State "upgrade the server";
    /// A stand-alone server takes no part (R14).
    Standalone "STANDALONE" State "join the server to the installation";
    /// Somebody changed the bytes of a registered file on one server (R31).
    Drifted "DRIFTED" State "`lockstep file update-version` spreads the bytes that are there, `lockstep file restore` brings the registered ones back";
    /// A link, a pipe, a socket, a device, a directory, or a file with a second name.
    NotRegular "NOT_REGULAR" State "put a copy of its content in its place: only regular files with one name are registered";
    /// The disk of one server refuses work at one path.
    DiskRefused "DISK_REFUSED" State "look at what the disk says of the path: rights, attributes (lsattr), mounts, the log of the kernel; it is tried again by itself";
    /// No such sync run, or it is not kept any more.
    SyncRunNotFound "SYNC_RUN_NOT_FOUND" NotFound "list the runs to find its id";
    /// Firmware is not synchronised, because the option is off (R8).
    OptionOff "OPTION_OFF" State "switch it on to copy it: `lockstep settings set --firmware-synchronization on`";
    /// Firmware is not synchronised, because its protocol is none of UMS WebDAV (R9).
    ProtocolNotWebdav "PROTOCOL_NOT_WEBDAV" State "choose HTTPS (UMS WebDAV) or HTTP (UMS WebDAV) as its protocol to copy it: `lockstep firmware set --protocol`";
    /// Firmware is not synchronised, because its target is no WebDAV directory (R10).
    TargetNotWebdav "TARGET_NOT_WEBDAV" State "move it into a WebDAV directory to copy it: `lockstep firmware set --target`";
    /// No such firmware update, or offer.
    FirmwareNotFound "FIRMWARE_NOT_FOUND" NotFound "list the updates, or check for new ones, to find its id";
    /// The update was made of this offer already.
    FirmwareExists "FIRMWARE_EXISTS" Exists "use the update that is there, or delete it first";
    /// Not possible in this part of the life of an update.
    FirmwareBusy "FIRMWARE_BUSY" State "cancel the download first, or wait until it is published";
    /// Nothing is downloaded from an address of this kind.
    AddressRefused "ADDRESS_REFUSED" State "if the host is meant, add it to the allow-list of its source in the file of sources";
    /// The server of a vendor did not answer as it should.
    VendorUnreachable "VENDOR_UNREACHABLE" Unavailable "check the address of the source, and that the catalog reaches it; it is tried again by itself";
    /// A feed, or an entry of it, is malformed.
    FeedInvalid "FEED_INVALID" State "tell the vendor; other entries are not concerned";
    /// The signature of an entry is not that of its source.
    SignatureInvalid "SIGNATURE_INVALID" State "do not use it; compare the key in the file of sources with that of the vendor";
    /// The archive is malformed, or holds what is not taken from archives.
    ArchiveInvalid "ARCHIVE_INVALID" Invalid "make the archive anew: regular files with plain relative names, not encrypted";
    /// No server holds all of it yet.
    NotAvailableYet "NOT_AVAILABLE_YET" State "wait until a server holds all of it, and ask again";
    /// The clock of the server is wrong, or contradicted, so it originates nothing (R62).
    ClockFenced "CLOCK_FENCED" State "set the clock of the server right, see `lockstep clock`: the fence is lifted by itself some seconds later; an admin who knows better lifts it for an hour with `lockstep clock override`";
    /// The clock of the server was set, and its services were not restarted since (R64).
    RestartRequired "RESTART_REQUIRED" State "restart filesync and timeguard of that server; Kubernetes, systemd and `lockstep up` do it by themselves";
}

impl Reason {
    /// The reason with this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("no reason {text}")))
    }
}

/// The values that the text of an error shows, for programs. Keys are the words of the contract.
pub type Metadata = Vec<(&'static str, String)>;

/// One field of a request that breaks its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as in the contract, such as `files[3].path`.
    pub field: String,
    /// What it should be.
    pub description: String,
}

/// An error that can be told to a caller. The chassis alone makes a status of it.
pub trait Fault: std::error::Error {
    /// The stable reason.
    fn reason(&self) -> Reason;

    /// The values the text shows.
    fn metadata(&self) -> Metadata {
        Vec::new()
    }

    /// How long to wait before trying again, where waiting helps.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// The fields that are wrong, for [`Reason::FieldViolation`] and [`Reason::PathInvalid`].
    fn violations(&self) -> Vec<Violation> {
        Vec::new()
    }

    /// What kind of thing is missing or in the way, and its name.
    fn resource(&self) -> Option<(&'static str, String)> {
        None
    }
}
