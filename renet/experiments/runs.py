"""Runs of experiments: what is there, what differs, and doing what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.files import write_json
from renet.common.progress import progress
from renet.common.repository import ROOT, product_path
from renet.data.held_out import hold_out
from renet.data.split_reader import IMAGES, LABELS
from renet.evaluation.scores import Evaluation, LabelSource, evaluate_images
from renet.evaluation.sizes import SHARES
from renet.evaluation.voc_submission import ARCHIVE, SUBFOLDER, image_sizes, write_submission
from renet.experiments.plan import Inference
from renet.experiments.training import Settings, Training, difference, write_files
from renet.networks.trained_run import read_metadata
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.image_job import RECORD, identity, items_of_split, read_record
from renet.prediction.inference import PredictionSettings
from renet.prediction.prediction_job import PredictionJob
from renet.training.files import DEPLOY, DEPLOY_CRF, SOLVER
from renet.training.run_folder import RunFolder

VGG16_HINT = "data_prep/vgg16.py makes it; --weights FILE takes another, --weights none starts from nothing"
Command = Callable[..., None]


@dataclass(frozen=True)
class Result:
    """Results of one inference.

    Attributes:
        evaluation: what evaluate.py says; None where the split has no labels.
        seconds: for an image, the median.
        device: where they were measured.
        images: number of images.
        tree: the submission's folder.
        archive: the same, packed.
    """

    evaluation: dict[str, Any] | None
    seconds: float | None
    device: str
    images: int
    tree: Path | None = None
    archive: Path | None = None

    def measure(self, name: str) -> float | None:
        """Give a figure as the paper does: a score in percent, or `seconds`."""
        if name == "seconds":
            return self.seconds
        return None if self.evaluation is None else 100 * self.evaluation[name]


@dataclass
class Runs:
    """Runs in a folder.

    Attributes:
        settings: of all.
        command: runs a script of this repository (see `script_command.command`).
        total: how many runs there are to come, for a person.
        seen: names of the runs that came already.
    """

    settings: Settings
    command: Command
    total: int = 0
    seen: list[str] = field(default_factory=list)

    def folder(self, training: Training) -> Path:
        """Name the run's folder."""
        return training.folder(self.settings.out)

    def weights(self, training: Training) -> Path:
        """Name the weights that a training ends with."""
        return training.result(self.settings.out)

    # ------------------------------------------------------------------------------------------------- what is there

    def is_begun(self, training: Training) -> bool:
        """Tell whether there is something of the run that a new training would lose."""
        folder = self.folder(training)
        return (folder / SOLVER).is_file() and RunFolder(folder).is_used()

    def is_trained(self, training: Training) -> bool:
        """Tell whether the run came to its end."""
        metadata = read_metadata(self.folder(training))
        return metadata.get("state") == "finished" and self.weights(training).is_file()

    def check(self, training: Training) -> None:
        """Make sure that what is there of the run is a part of what is wanted, and that what it needs is there.

        Raises:
            UserError: it is of other options, or something that it starts from is missing.
        """
        if self.is_begun(training):
            changed = difference(training, self.settings.out)
            if changed is not None:
                raise UserError(
                    f"{self.folder(training)}: this run was begun with other options ({changed}); give those again, "
                    "choose another --out, or delete it"
                )
            return
        for source in (*training.data.train, training.data.test) if training.held_out is None else ():
            self._check_split(Path(source))
        if training.start is None and training.weights is not None and not training.weights.is_file():
            raise UserError(f"{training.weights}: no such file of weights ({VGG16_HINT})")

    def check_inference(self, inference: Inference) -> None:
        """Make sure that the split to predict is there.

        Raises:
            UserError: it is not.
        """
        if inference.training.held_out is None:
            self._check_split(inference.split)

    def _check_split(self, split: Path) -> None:
        if not (ROOT / split / IMAGES).is_dir():
            raise UserError(f"{split}: no such prepared split (data_prep/*.py prepare them)")

    # ------------------------------------------------------------------------------------------------------- training

    def train(self, training: Training) -> None:
        """Train, or go on with, what is not trained yet.

        Raises:
            UserError: as `check` does.
            Stopped: the training failed or was stopped.
        """
        if training.start is not None:
            self.train(training.start)
        if training.name in self.seen:
            return
        self.check(training)
        self.seen.append(training.name)
        print(f"\nrun {len(self.seen)} of {max(self.total, len(self.seen))}: {training.name}", flush=True)
        if self.is_trained(training):
            print(f"{self.folder(training)}: trained already")
            return
        begun = self.is_begun(training)
        if not begun:
            self._prepare(training)
        self.command(*self.training_command(training, begun))
        if not self.is_trained(training):
            raise UserError(f"{self.folder(training)}: the training ended without {self.weights(training).name}")

    def _prepare(self, training: Training) -> None:
        held_out = training.held_out
        if held_out is not None:
            hold_out(held_out.splits, self.settings.dataset, held_out.folder)
        write_files(training, self.settings.out)

    def training_command(self, training: Training, begun: bool) -> tuple[object, ...]:
        """Write the script and its arguments."""
        solver = product_path(training.solver_file(self.settings.out))
        words: list[object] = ["tools/train.py", "--run", product_path(self.folder(training)), "--keep", 1]
        words += ["--resume"] if begun else ["--solver", solver]
        if training.seed and not begun:
            words += ["--seed", training.seed]
        words += ["--tensorboard"] if self.settings.tensorboard else []
        return (*words, *self._device())

    def _device(self) -> list[object]:
        return [] if self.settings.gpu is None else ["--gpu", self.settings.gpu]

    # ----------------------------------------------------------------------------------------------------- prediction

    def predictions(self, inference: Inference) -> Path:
        """Name the folder of an inference's predictions."""
        return self.folder(inference.training) / f"predictions{'_crf' if inference.crf else ''}"

    def evaluation_file(self, inference: Inference) -> Path:
        """Name the file of its scores."""
        return self.folder(inference.training) / f"evaluation{'_crf' if inference.crf else ''}.json"

    def tree(self, inference: Inference) -> Path:
        """Name the folder that a submission's `results/` stands in."""
        return self.folder(inference.training) / f"comp6{'_crf' if inference.crf else ''}"

    def _job(self, inference: Inference) -> PredictionJob:
        crf = inference.crf_parameters if inference.crf else None
        return PredictionJob(
            dataset=self.settings.dataset,
            out=self.predictions(inference),
            items=items_of_split(inference.split),
            split=inference.split,
            model=self.folder(inference.training) / DEPLOY,
            weights=self.weights(inference.training),
            settings=PredictionSettings(flip=self.settings.flip, crf=crf),
        )

    def predict(self, inference: Inference) -> None:
        """Predict the images whose predictions are missing or of other weights.

        Raises:
            UserError: the split is damaged.
            Stopped: predict.py failed or was stopped.
        """
        job = self._job(inference)
        record = read_record(job.out)
        known = record is not None and identity(record) == identity(
            {**job.origin(), "classes": list(job.dataset.classes)}
        )
        if known and all(job.is_done(item) for item in job.items):
            return
        others = not known and any(job.out.glob("*.png"))
        self.command(*self.prediction_command(inference), *(["--overwrite"] if others else []))

    def prediction_command(self, inference: Inference) -> tuple[object, ...]:
        """Write the script and its arguments."""
        words: list[object] = ["tools/predict.py", "--model", product_path(self.folder(inference.training) / DEPLOY)]
        words += ["--weights", product_path(self.weights(inference.training)), "--split", product_path(inference.split)]
        words += ["--out", product_path(self.predictions(inference))]
        words += ["--flip"] if self.settings.flip else []
        if inference.crf:
            own = inference.crf_parameters != CrfParameters()
            network = inference.training.solver_file(self.settings.out).with_name(DEPLOY_CRF)
            words += ["--crf", *([product_path(network)] if own else [])]
        return (*words, *self._device())

    # -------------------------------------------------------------------------------------------------------- scoring

    def score(self, inference: Inference) -> None:
        """Score the predictions against the split's labels, if it has any and they are not scored yet.

        Raises:
            UserError: a prediction or a label is bad; names the file.
        """
        if not (inference.split / LABELS).is_dir() or self.evaluation(inference) is not None:
            return
        source = LabelSource.open(inference.split)
        dataset = self.settings.dataset
        classes, predictions = len(dataset.classes), self.predictions(inference)
        results = evaluate_images(predictions, source, classes, dataset.ignore_label, size_shares=SHARES)
        try:
            bar = progress(results, total=len(source.ids), description="scoring", unit="image")
            evaluation = Evaluation.of(bar, dataset.classes)
        except ValueError as error:
            raise UserError(f"{inference.split}: {error}") from None
        content = {"dataset": dataset.name, **evaluation.as_json(with_images=True), "made_by": self._made_by(inference)}
        write_json(self.evaluation_file(inference), content)

    def scoring_command(self, inference: Inference) -> tuple[object, ...]:
        """Write the command that does the same as `score`."""
        words = ["tools/evaluate.py", "--predictions", product_path(self.predictions(inference))]
        words += ["--labels", product_path(inference.split), "--dataset", product_path(self.settings.dataset.folder)]
        return (*words, "--by-size", "--json", product_path(self.evaluation_file(inference)))

    def _made_by(self, inference: Inference) -> list[Any]:
        """What was predicted with what: when it changes, so may the scores."""
        record = read_record(self.predictions(inference)) or {}
        return json.loads(json.dumps([product_path(inference.split), *identity(record)]))

    def evaluation(self, inference: Inference) -> dict[str, Any] | None:
        """Read the scores of the present predictions; None where there are none."""
        try:
            content = json.loads(self.evaluation_file(inference).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return content if content.get("made_by") == self._made_by(inference) else None

    def can_submit(self) -> bool:
        """Tell whether VOC's server would take predictions of this dataset."""
        return self.settings.dataset.name == "voc2012" and self.settings.dataset.image_scale == 1

    def write_tree(self, inference: Inference) -> None:
        """Write the predictions as a submission to the VOC server, unless there is one of them.

        Raises:
            UserError: a prediction is bad; names the file.
        """
        folder, archive = self.tree(inference), self.tree(inference) / ARCHIVE
        record = self.predictions(inference) / RECORD
        names = {f"{item.image_id}.png" for item in items_of_split(inference.split)}
        is_newer = archive.is_file() and archive.stat().st_mtime_ns > record.stat().st_mtime_ns
        if is_newer and {file.name for file in (folder / SUBFOLDER).iterdir()} == names:
            return
        sizes = image_sizes(inference.split)
        write_submission(self.predictions(inference), list(sizes), self.settings.dataset, folder, sizes)

    def result(self, inference: Inference) -> Result | None:
        """Collect the results of an inference; None before it is predicted."""
        if not self.is_trained(inference.training):
            return None
        record = read_record(self.predictions(inference))
        evaluation = self.evaluation(inference)
        labelled = (inference.split / LABELS).is_dir()
        if record is None or (labelled and evaluation is None):
            return None
        images = len(items_of_split(inference.split))
        archive = self.tree(inference) / ARCHIVE
        return Result(
            evaluation,
            record.get("seconds_per_image"),
            record.get("device", ""),
            images,
            self.tree(inference) / SUBFOLDER if archive.is_file() else None,
            archive if archive.is_file() else None,
        )

    def finish(self, inference: Inference, tree: bool = False) -> None:
        """Train, predict and score, as far as each is missing; `tree`: and write the submission.

        Raises:
            UserError: something is missing, damaged or of other options.
            Stopped: a step failed or was stopped.
        """
        self.train(inference.training)
        self.predict(inference)
        self.score(inference)
        if tree and self.can_submit():
            self.write_tree(inference)
