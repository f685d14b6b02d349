"""The DICOM door: Storage and Verification SCP (PS3.4 annex B and A), and what is said of images to come, on pynetdicom's threads."""

import logging
import threading
from typing import Any

import pynetdicom
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    Verification,
)

from arcuate.imaging.commitment import Committer
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.headers import ENCAPSULATED, EXPLICIT, IMPLICIT
from arcuate.imaging.procedure_steps import Listener
from arcuate.imaging.receiving import IMPLEMENTATION, Receiver, file_head
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.spool import Spool
from arcuate.kernel.errors import ArcuateError, Conflict, Unavailable
from arcuate.kernel.log import get_logger

# PS3.4 B.2.3, PS3.7 C
SUCCESS, NO_RESOURCES, NOT_UNDERSTOOD, NOT_THAT_OBJECT = 0x0000, 0xA700, 0xC000, 0xA900
# Uncompressed first: where the sender offers both, nothing has to be decoded.
TRANSFER_SYNTAXES = [EXPLICIT, IMPLICIT, *sorted(ENCAPSULATED)]
MEBI = 2**20


class StoreScp:
    """Receives objects and answers success only when they are on the disk and in the database."""

    def __init__(
        self,
        receiver: Receiver,
        spool: Spool,
        settings: ImagingSettings,
        listener: Listener | None = None,
        committer: Committer | None = None,
    ) -> None:
        self._listener, self._committer = listener, committer
        self._receiver, self._spool, self._settings = receiver, spool, settings
        self._log = get_logger("imaging")
        self._ae: Any = None
        self._server: Any = None
        self._pending: dict[int, int] = {}
        self._lock = threading.Lock()
        # The library's own log lines hold UIDs and AE titles of senders, its tracebacks whole data sets.
        pynetdicom._config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

    def open(self) -> None:
        """Listen.

        Raises:
            Conflict: The port is taken.
        """
        s = self._settings
        ae = AE(ae_title=s.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION
        ae.require_called_aet = True
        ae.require_calling_aet = s.senders.split()
        ae.maximum_associations = s.associations
        ae.network_timeout = ae.dimse_timeout = s.idle_s
        ae.maximum_pdu_size = 131_072
        ae.acse_timeout = 30
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_CONN_CLOSE, self._forget),
        ]
        if self._listener is not None:
            ae.add_supported_context(ModalityPerformedProcedureStep)
            ae.add_supported_context(InstanceAvailabilityNotification)
            handlers += [(evt.EVT_N_CREATE, self._listener.create), (evt.EVT_N_SET, self._listener.change)]
        if self._committer is not None:
            ae.add_supported_context(StorageCommitmentPushModel)
            handlers.append((evt.EVT_N_ACTION, self._committer.answer))
        try:
            self._ae, self._server = ae, ae.start_server((s.host, s.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise Conflict(
                f"The DICOM port {s.port} on {s.host} cannot be opened ({error.strerror})", where="ARCUATE_IMAGING_PORT",
                todo="End the program that uses it, or choose another port.",
            ) from error  # fmt: skip

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening and end all associations."""
        if self._ae is not None:
            self._ae.shutdown()
            self._ae = self._server = None

    def _store(self, event: Any) -> int:
        """Answer one C-STORE request."""
        with self._lock:
            self._pending[id(event.assoc)] = 0
        request = event.request
        sop_class, sop_uid = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        source = str(event.assoc.requestor.ae_title).strip()
        try:
            self._spool.check_room()
            with self._spool.incoming() as (path, file):
                file.write(file_head(sop_class, sop_uid, str(event.context.transfer_syntax)))
                file.write(request.DataSet.getbuffer())
                file.flush()
                self._receiver.take(path, source, (sop_class, sop_uid))
            return SUCCESS
        except NotMeasurable as error:
            return NOT_THAT_OBJECT if error.refusal.code is RefusalCode.MIXED else NOT_UNDERSTOOD
        except (Unavailable, OSError) as error:
            self._log.error("object not stored", error=type(error).__name__)
            return NO_RESOURCES
        except ArcuateError as error:
            self._log.error("object not stored", error=type(error).__name__)
            return NOT_UNDERSTOOD
        except Exception as error:  # noqa: BLE001 - the edge of the protocol: never a success, never a traceback with data
            self._log.error("defect", error=type(error).__name__)
            return NO_RESOURCES

    def _count(self, event: Any) -> None:
        """End an association that sends more than one object may hold: the library gathers it in memory."""
        with self._lock:
            key = id(event.assoc)
            self._pending[key] = self._pending.get(key, 0) + len(event.data)
            too_much = self._pending[key] > (self._settings.file_mib + 1) * MEBI
        if too_much:
            self._log.warning("association ended", reason="object too large")
            event.assoc.abort()

    def _forget(self, event: Any) -> None:
        with self._lock:
            self._pending.pop(id(event.assoc), None)
