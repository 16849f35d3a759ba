"""HTML and manual pages become the text that a reader sees."""

from experiments.markup import html_lines
from experiments.markup import roff_paragraphs

PAGE = r""".\" A comment.
.TH OPEN 2 "Datum" "Linux"
.SH BEZEICHNUNG
open \- eine Datei \fBöffnen\fP
.SH "SIEHE AUCH"
.PP
Mit \fI\,OPTION\/\fP und \(aq\ea\(aq
über zwei Zeilen\c
\" und ein Kommentar
.br
hinweg.
.IP \(bu 2
.BR chmod (2),
.B "fett gesetzt"
.TP
\f[CB]\-\-hilfe\f[]
\h'-04'zeigt \s-1GROSS\s0 \*(lq Hilfe \m[blau]an\m[].
.SH ÜBERSETZUNG
Von jemandem.
"""


def test_a_manual_page_is_read_in_paragraphs():
  assert roff_paragraphs(PAGE) == [
    'BEZEICHNUNG',
    'open - eine Datei öffnen',
    'SIEHE AUCH',
    "Mit OPTION und '\\a' über zwei Zeilen hinweg.",
    '• chmod(2), fett gesetzt',
    '--hilfe zeigt GROSS Hilfe an.',
  ]
  assert roff_paragraphs('') == []


def test_html_is_read_in_lines():
  page = """<html><head><title>No</title></head><body><!-- no -->
  <header>No</header><p class="a">One
  <b>bo</b>ld &amp; <a href="x">linked</a>,&nbsp;x &lt; y.</p><ul><li>Item
  </li><li></li></ul><script>no</script>a < b<br/>end</body></html>"""
  assert html_lines(page) == [
    'One bold & linked, x < y.',
    'Item',
    'a < b',
    'end',
  ]
  assert html_lines('') == []
