"""Pictures and tables of a study: files beside the database, which Optuna dashboard shows with the study and its trials."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial

VARIABLE = "NASATTN_ARTIFACTS"


def artifact_folder(url: str) -> Path | None:
    """Where the artifacts of a database lie: the folder NASATTN_ARTIFACTS, else ``studies.artifacts`` beside ``studies.db``.

    None where there is neither: a database on a server, or in memory. The folder is made when something is put there.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database).with_suffix(".artifacts")


class Artifacts:
    """The artifacts of one database.

    Args:
        folder: Of the files.
        storage: Optuna's storage, which holds their names.
    """

    def __init__(self, folder: Path, storage: BaseStorage) -> None:
        self.folder, self.storage = folder, storage

    def put(self, owner: Study | Trial, name: str, content: str | bytes) -> str:
        """Attach a file to a study or a trial; one of the same name is replaced, so that nothing piles up.

        Args:
            owner: Of a trial only while it runs.
            name: Of the file, with the suffix that says what it is.
            content: Text is written as UTF-8.

        Returns:
            The artifact's id.

        Raises:
            OSError: The folder cannot be written.
        """
        data = content.encode() if isinstance(content, str) else content
        self.folder.mkdir(parents=True, exist_ok=True)
        store = FileSystemArtifactStore(self.folder)
        with tempfile.TemporaryDirectory(dir=self.folder) as work:  # there: a full disk is found before the database is told
            path = Path(work) / name
            path.write_bytes(data)
            for known in get_all_artifact_meta(owner, storage=self.storage):
                if known.filename == name:
                    with path.open("rb") as file:
                        store.write(known.artifact_id, file)
                    return known.artifact_id
            return upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=owner, storage=self.storage)
